"""Sees requests that run for too long. gunicorn's timeout does not: with threads, it is about the whole worker."""

import logging
import threading
import time
from contextlib import suppress
from socket import SHUT_RD, socket
from typing import NamedTuple

from flask import Flask, g, request

from config import Settings

logger = logging.getLogger(__name__)


class Running(NamedTuple):
    """A request, since when it runs, and the connection that it came on."""

    began: float
    connection: socket
    request_id: str
    route: str | None


def register(app: Flask, settings: Settings) -> None:
    """Log and count each request that runs longer than `web.timeout`, and wait for no more of its body.

    So a body that comes too slowly ends; a request that works on may still end well.
    """
    if not (most := settings.web.timeout):
        return
    running: set[Running] = set()
    started = threading.Lock()

    def watch() -> None:
        while True:
            time.sleep(1)
            for late in [one for one in tuple(running) if time.monotonic() - one.began > most]:
                running.discard(late)
                fields = {"request_id": late.request_id, "route": late.route}
                logger.warning("a request runs longer than web.timeout, %g s", most, extra=fields)
                with suppress(Exception):  # Its client may have gone, and nothing may end this thread.
                    late.connection.shutdown(SHUT_RD)
                    app.extensions["overdue"].inc()

    @app.before_request
    def begin() -> None:
        if connection := request.environ.get("gunicorn.socket"):
            # Not earlier: a thread does not come along into the workers that gunicorn forks.
            if started.acquire(blocking=False):
                threading.Thread(target=watch, daemon=True).start()
            route = request.url_rule.rule if request.url_rule else None
            g.running = Running(time.monotonic(), connection, g.request_id, route)
            running.add(g.running)

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        running.discard(g.get("running"))
