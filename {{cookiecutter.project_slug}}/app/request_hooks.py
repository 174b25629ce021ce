"""What happens before and after every request."""

import logging
import re
import time
import uuid

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
    # Pages hold what only one user may see; a response that may be kept says so itself, as static files do.
    headers = [*settings.security.headers.items(), ("Cache-Control", "no-store")]

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
    def add_headers(response: Response) -> Response:
        given = {name.lower() for name, _ in response.headers}
        response.headers.extend(header for header in headers if header[0].lower() not in given)
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
