"""Health and version, as JSON for load balancers and people with curl."""

import logging
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import svcs
from flask import Blueprint, Response, current_app, jsonify
from sqlalchemy import Engine

from app.services import UPGRADE
from config import Settings

blueprint = Blueprint("ops", __name__)
logger = logging.getLogger(__name__)


class PendingMigrations(Exception):
    """The database waits for `python main.py db upgrade`."""


# What operators call the services.
NAMES = {"Engine": "database", "Disks": "storage", "Broker": "queue"}


@blueprint.get("/livez")
def livez() -> Response:
    """The process answers; nothing else is asked."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Whether everything that a request may need is there: 200, or 503 with what is not."""
    checks: dict[str, Callable[[], None]] = {"migrations": _check_migrations}
    checks |= {_name(ping): ping.ping for ping in svcs.flask.get_pings()}
    results = {name: _result(name, check) for name, check in checks.items()}
    ready = set(results.values()) == {"ok"}
    return jsonify(status="ok" if ready else "failed", checks=results), 200 if ready else 503


@blueprint.get("/version")
def version() -> Response:
    """Which service this is and which version of it."""
    settings = svcs.flask.get(Settings)
    return jsonify(service=settings.app.slug, version=_project_version(settings.root))


def _name(ping: svcs.ServicePing) -> str:
    kind = ping.name.rpartition(".")[2]
    return NAMES.get(kind, kind.lower())


def _check_migrations() -> None:
    from database.migrations import pending

    if pending(svcs.flask.get(Engine)):
        raise PendingMigrations(UPGRADE)


def _result(name: str, check: Callable[[], None]) -> str:
    failing: set[str] = current_app.extensions.setdefault("not_ready", set())
    try:
        check()
    except PendingMigrations as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  (whatever it is, the service is not ready)
        # Once, not at every probe.
        if name not in failing:
            logger.error("not ready: %s: %s: %s", name, type(error).__name__, error)
        failing.add(name)
        return f"failed: {type(error).__name__}"
    if name in failing:
        logger.info("ready again: %s", name)
    failing.discard(name)
    return "ok"


@cache
def _project_version(root: Path) -> str:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])
