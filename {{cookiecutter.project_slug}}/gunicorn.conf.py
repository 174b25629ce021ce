"""gunicorn's settings, from `config/web.ini`. gunicorn finds this file by its name."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger
from sqlalchemy.orm import configure_mappers

from config import exit_on_problems, load, require_safe

with exit_on_problems():
    settings = load()
    require_safe(settings)

# Brackets are for IPv6, and do not matter for other hosts.
bind = f"[{settings.web.host}]:{settings.web.port}"
workers = settings.web.workers
threads = settings.web.threads
worker_class = "gthread"
if "LISTEN_FDS" in os.environ:
    # At a deploy, two releases serve systemd's socket at once, and nginx opens one connection per request. A process
    # takes two per thread, one that runs and one that waits; the rest wait in the socket for the first that is free.
    worker_connections = 2 * threads
timeout = settings.web.timeout
graceful_timeout = settings.web.graceful_timeout
reload = settings.web.reload
# Without it a worker's first import error is found only after the server has reported itself ready.
preload_app = not settings.web.reload
# Heartbeat files on a disk can block a worker; where there is memory to keep them in, they go there.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
logconfig_dict = settings.logging
control_socket_disable = True
# Whether a proxy is believed is decided in one place, the app, by web.trusted_proxies.
forwarded_allow_ips = ""
# The workers' numbers are in a folder of this gunicorn's own: at a deploy, and in containers, there are several. It has
# to be named before anything imports prometheus_client, which looks for it once.
if "prometheus_client" not in sys.modules:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="metrics-")


class logger_class(Logger):  # noqa: N801  (gunicorn's name)
    """The app logs requests; gunicorn would put together lines of its own that go nowhere."""

    access_log_enabled = False


def on_starting(server: Any) -> None:
    """Do once, before workers are forked, what the first visitors of each would wait for."""
    if preload_app:
        templates = server.app.wsgi().jinja_env
        # Other files may lie beside them.
        for name in templates.list_templates(["html"]):
            templates.get_template(name)
        configure_mappers()


def post_worker_init(_worker: Any) -> None:
    """Leave Ctrl-C to the master, which ends its workers: a worker that is told twice at once may wait for itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_exit(_server: Any) -> None:
    """Remove the numbers."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
