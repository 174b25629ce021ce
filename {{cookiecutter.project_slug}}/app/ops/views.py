"""Health and version, as JSON for load balancers and people with curl."""

import logging
from collections.abc import Callable

import dramatiq
import svcs
from flask import Blueprint, Response, current_app, jsonify
from sqlalchemy import Engine

from app.services import UPGRADE
from config import Settings, project_release, project_version

blueprint = Blueprint("ops", __name__)
logger = logging.getLogger(__name__)


class PendingMigrations(Exception):
    """The database waits for `python main.py db upgrade`."""


@blueprint.get("/livez")
def livez() -> Response:
    """The process answers; nothing else is asked."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Whether everything that a request may need is there: 200, or 503 with what is not; and which release says so."""
    found = check_services()
    failing: set[str] = current_app.extensions.setdefault("not_ready", set())
    for name, error in found.items():
        # Once, not at every probe.
        if error and name not in failing:
            logger.error("not ready: %s: %s: %s", name, type(error).__name__, error)
            failing.add(name)
        elif not error and name in failing:
            logger.info("ready again: %s", name)
            failing.discard(name)
    status, code = ("failed", 503) if any(found.values()) else ("ok", 200)
    results = {name: in_words(error) for name, error in found.items()}
    return jsonify(status=status, checks=results, release=project_release(svcs.flask.get(Settings).root)), code


@blueprint.get("/version")
def version() -> Response:
    """Which service this is, which version of it, and which release on its host."""
    settings = svcs.flask.get(Settings)
    numbers = {"version": project_version(settings.root), "release": project_release(settings.root)}
    return jsonify(service=settings.app.slug, **numbers)


def check_services() -> dict[str, Exception | None]:
    """What is wrong with each part that a request may need; None for one that works."""
    # What operators call the services.
    names = {"Engine": "database", "Disks": "storage", type(dramatiq.get_broker()).__name__: "queue"}
    checks: dict[str, Callable[[], None]] = {"migrations": _check_migrations}
    for ping in svcs.flask.get_pings():
        kind = ping.name.rpartition(".")[2]
        checks[names.get(kind, kind.lower())] = ping.ping
    found: dict[str, Exception | None] = dict.fromkeys(checks)
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001  (a part may fail as it likes; the caller tells of it)
            found[name] = error
    return found


def in_words(error: Exception | None) -> str:
    """What may be told to everybody; the message of an error can hold an address or a password."""
    if isinstance(error, PendingMigrations):
        return str(error)
    return f"failed: {type(error).__name__}" if error else "ok"


def _check_migrations() -> None:
    from database.migrations import pending

    if pending(svcs.flask.get(Engine)):
        raise PendingMigrations(UPGRADE)
