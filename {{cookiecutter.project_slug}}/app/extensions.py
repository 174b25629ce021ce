"""Flask extensions that features use by name."""

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any, TypeVar

import svcs
from flask import Flask, abort, flash, redirect, request, session, url_for
from flask_limiter import Limiter, RouteLimit
from flask_login import LoginManager
from flask_wtf import CSRFProtect
from sqlalchemy import Engine
from werkzeug.wrappers import Response

from config import Settings
from database import rate_limits  # noqa: F401  (makes database:// known to the limiter)

View = TypeVar("View", bound=Callable[..., Any])

# A cookie holds no more than 4 kB. From a longer address, people come back to the front page.
LONGEST_NEXT = 1000


def client_network() -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, all of which one machine can have."""
    try:
        address = IPv6Address(request.remote_addr or "::")
    except ValueError:
        return request.remote_addr or ""
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))


csrf = CSRFProtect()
limiter = Limiter(client_network, storage_uri="database://", headers_enabled=True)
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
    if request.method == "GET" and len(wanted := request.full_path.rstrip("?")) <= LONGEST_NEXT:
        # In the signed session, where nobody else can set it.
        session["next"] = wanted
    flash("Please log in first.")
    return redirect(url_for(login_manager.login_view or "index"))
