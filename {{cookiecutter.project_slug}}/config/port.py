"""A look at the port before servers are started on it."""

import errno
import socket
import sys

from config.settings import Web


def require_free_port(web: Web) -> None:
    """Exit with 1 and one line if `web.host` and `web.port` cannot be listened on."""
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((web.host, web.port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            where = f"{web.host}:{web.port}"
            sys.exit(f"web: {where} {reason}; set another one, for example PORT={web.port + 1}")
