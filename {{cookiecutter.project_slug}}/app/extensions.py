"""Flask extensions that features use by name."""

import functools
from collections.abc import Callable
from hmac import compare_digest
from ipaddress import IPv6Address
from math import ceil
from typing import Any, TypeVar

import svcs
from flask import Flask, abort, flash, redirect, request, session, url_for
from flask_login import LoginManager, current_user
from flask_wtf import CSRFProtect
from sqlalchemy import Engine
from werkzeug.exceptions import TooManyRequests
from werkzeug.wrappers import Response

from config import Settings
from database import rate_limits

View = TypeVar("View", bound=Callable[..., Any])

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
# What a proxy adds to a request that it passes on.
PROXY_HEADERS = ("forwarded", "via", "x-forwarded-", "x-real-ip")

# A cookie holds no more than 4 kB. From a longer address, people come back to the front page.
LONGEST_NEXT = 1000


def client() -> str:
    """What counts as one: an account that is logged in, else an IPv4 address, or an IPv6 network of 64 bits.

    One machine can have all addresses of such a network.
    """
    if current_user.is_authenticated:
        return f"account {current_user.id}"
    try:
        address = IPv6Address(request.remote_addr or "::")
    except ValueError:
        return request.remote_addr or ""
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))


csrf = CSRFProtect()
login_manager = LoginManager()


def register(app: Flask) -> None:
    csrf.init_app(app)
    login_manager.init_app(app)


def accepts_files(view: View) -> View:
    """Mark a view that files are uploaded to: its requests may be as large as `security.max_upload_size`."""
    view.accepts_files = True  # type: ignore[attr-defined]
    return view


def rate_limited(limit: str | Callable[[], str], key: Callable[[], str] = client) -> Callable[[View], View]:
    """Limit how often a client, or what else `key` names, may write with a view.

    `limit` is a name in `config/security.yaml`, or returns a text such as "20 per hour" from a feature's own settings.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if request.method in ("POST", "PUT", "PATCH"):
                allowed = limit() if callable(limit) else svcs.flask.get(Settings).security.rate_limits[limit]
                if wait := rate_limits.hit(svcs.flask.get(Engine), allowed, f"{request.endpoint} {key()}"):
                    reason = "Too many attempts. Please wait a while, then try again."
                    raise TooManyRequests(reason, retry_after=ceil(wait))
            return view(*args, **kwargs)

        return counted  # type: ignore[return-value]

    return decorate


def require_room(used: int, most: int, what: str) -> None:
    """Refuse a request for one more when an account has as many as it may have."""
    if used >= most:
        abort(403, f"An account may have {most:,} {what}, and yours has {used:,}.")


def is_operator(*, on_socket: bool = True) -> bool:
    """Whether a request comes from this machine through no proxy, or has the token of /metrics.

    On a Unix socket there is no address, and a proxy whose headers somebody has changed could not be told from an
    operator: what is worth more than a release's name is not shown there.
    """
    token = svcs.flask.get(Settings).telemetry.metrics_token
    given = request.headers.get("Authorization", "").encode()
    passed_on = any(name.lower().startswith(PROXY_HEADERS) for name, _ in request.headers)
    is_on_this_machine = request.remote_addr in ((*LOOPBACK, "") if on_socket else LOOPBACK) and not passed_on
    return is_on_this_machine or bool(token and compare_digest(given, f"Bearer {token}".encode()))


def require_operator(*, on_socket: bool = True) -> None:
    """For all others, there is no such page."""
    if not is_operator(on_socket=on_socket):
        abort(404)


def wants_json() -> bool:
    """Whether the client is a program: it asks the API, or prefers JSON to a page."""
    is_api = request.path.startswith("/api/")
    return is_api or request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json"


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
