"""gunicorn's settings, from `config/web.ini`. gunicorn finds this file by its name."""

import os
from pathlib import Path

from gunicorn.arbiter import Arbiter
from sqlalchemy.orm import configure_mappers

from config import exit_on_problems, load, require_safe

with exit_on_problems():
    settings = load()
    require_safe(settings)

host = f"[{settings.web.host}]" if ":" in settings.web.host else settings.web.host
bind = f"{host}:{settings.web.port}"
workers = settings.web.workers
threads = settings.web.threads
worker_class = "gthread"
if "LISTEN_FDS" in os.environ:
    # At a deploy, two releases serve systemd's socket at once. Each of nginx's connections is one request: beside one
    # that runs, each thread has one that waits; all others wait in the socket for whichever process is free first.
    worker_connections = 2 * threads
timeout = settings.web.timeout
graceful_timeout = settings.web.graceful_timeout
reload = settings.web.reload
# Without it a worker's first import error is found only after the server has reported itself ready.
preload_app = not settings.web.reload
# Heartbeat files on a disk can block a worker; where there is memory to keep them in, they go there.
shared_memory = Path("/dev/shm")  # noqa: S108
worker_tmp_dir = str(shared_memory) if shared_memory.is_dir() else None
logconfig_dict = settings.logging
control_socket_disable = True
# Whether a proxy is believed is decided in one place, the app, by web.trusted_proxies.
forwarded_allow_ips = ""


def on_starting(server: Arbiter) -> None:
    """Do once, before workers are forked, what the first visitors of each would wait for."""
    if preload_app:
        templates = server.app.wsgi().jinja_env
        # Other files may lie beside them.
        for name in templates.list_templates(["html"]):
            templates.get_template(name)
        configure_mappers()
