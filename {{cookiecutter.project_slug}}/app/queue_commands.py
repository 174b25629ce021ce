"""Commands for the queue."""
