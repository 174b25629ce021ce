"""Flask extensions that features use by name."""

from collections.abc import Callable
from typing import Any, TypeVar

import svcs
from flask import Flask, abort, flash, redirect, request, session, url_for
from flask_limiter import Limiter, RouteLimit
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_wtf import CSRFProtect
from sqlalchemy import Engine
from werkzeug.wrappers import Response

from config import Settings
from database import rate_limits  # noqa: F401  (makes database:// known to the limiter)

View = TypeVar("View", bound=Callable[..., Any])

csrf = CSRFProtect()
limiter = Limiter(get_remote_address, storage_uri="database://", headers_enabled=True)
login_manager = LoginManager()


def register(app: Flask) -> None:
    with app.app_context():
        app.config["RATELIMIT_STORAGE_OPTIONS"] = {"engine": svcs.flask.get(Engine)}
    for extension in (csrf, limiter, login_manager):
        extension.init_app(app)


def accepts_files(view: View) -> View:
    """Mark a view that files are uploaded to: its requests may be as large as `security.max_upload_size`."""
    view.accepts_files = True  # type: ignore[attr-defined]
    return view


def rate_limited(name: str) -> RouteLimit:
    """Limit how often an address may post to a view, by the limit of that name in `config/security.yaml`."""
    return limiter.limit(
        lambda: svcs.flask.get(Settings).security.rate_limits[name],
        methods=["POST"],
        error_message="Too many attempts. Please wait a while, then try again.",
    )


def wants_json() -> bool:
    """Whether the client is a program: it prefers JSON to a page."""
    return request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


@login_manager.unauthorized_handler
def ask_to_log_in() -> Response:
    """Send people to the login page, and back afterwards; programs get 401."""
    if wants_json():
        abort(401)
    if request.method == "GET":
        # In the signed session, where nobody else can set it.
        session["next"] = request.full_path.rstrip("?")
    flash("Please log in first.")
    return redirect(url_for(login_manager.login_view or "index"))
