"""Brings the service to a host: scripts that need nothing but Python, and the files that they install."""
