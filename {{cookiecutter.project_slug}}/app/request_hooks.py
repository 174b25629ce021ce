"""What happens before and after every request."""

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, g, request, session

from app import logs
from app.job_context import known_user_id
from app.services import SAFE_METHODS
from config import Settings

# What a form may hold beside its file, in bytes.
FORM_AROUND_FILE = 10_000
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger("app.request")


def register(app: Flask, settings: Settings) -> None:
    """Attach the hooks. Those after a request run from the last to the first."""
    app.wsgi_app = with_headers(app.wsgi_app, settings.security.headers)  # type: ignore[assignment,method-assign]

    @app.before_request
    def identify() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-ID", "") if settings.web.trusted_proxies else ""
        g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        logs.context.set({"request_id": g.request_id})

    @app.before_request
    def allow_uploads() -> None:
        """Before anything reads the request's body."""
        if getattr(app.view_functions.get(request.endpoint or ""), "accepts_files", False):
            request.max_content_length = settings.security.max_upload_size + FORM_AROUND_FILE

    @app.teardown_request
    def forget(_error: BaseException | None) -> None:
        logs.context.set({})

    @app.after_request
    def read_the_rest(response: Response) -> Response:
        """If the connection closes while a proxy still sends, it answers 502 and drops this response.

        No more is read than an upload may have; after that, the connection closes.
        """
        left = settings.security.max_upload_size + FORM_AROUND_FILE if settings.web.trusted_proxies else 0
        while left > 0 and (data := request.environ["wsgi.input"].read(1 << 16)):
            left -= len(data)
        return response

    @app.after_request
    def log(response: Response) -> Response:
        # What is asked for all the time says nothing about anybody.
        quiet = request.blueprint == "ops" or request.endpoint in ("static", "metrics")
        fields = {
            "method": request.method,
            "route": request.url_rule.rule if request.url_rule else None,
            "status": response.status_code,
            "milliseconds": round((time.perf_counter() - g.started) * 1000, 1),
        }
        if user_id := known_user_id():
            fields["user_id"] = user_id
        logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra=fields)
        return response

    @app.after_request
    def add_request_id(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        return response

    @app.after_request
    def commit(response: Response) -> Response:
        """Keep what a request wrote that succeeds; one that is refused or fails leaves nothing."""
        if (open_session := g.get("session")) and response.status_code < 400 and request.method not in SAFE_METHODS:
            try:
                open_session.commit()
            except Exception:
                # What was done is undone, and nobody must be told that it was done.
                session.pop("_flashes", None)
                raise
        return response


def with_headers(application: WSGIApplication, headers: Mapping[str, str]) -> WSGIApplication:
    """Send `headers` with every response that does not set them itself."""
    # Pages hold what only one user may see; a response that may be kept says so itself, as static files do.
    added = [(name.lower(), (name, value)) for name, value in (*headers.items(), ("Cache-Control", "no-store"))]

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, given: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            names = {name.lower() for name, _ in given}
            return start_response(status, given + [header for name, header in added if name not in names], *error)

        return application(environ, start)

    return call
