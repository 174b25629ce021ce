"""Health and version, as JSON for load balancers and people with curl."""

import logging
import time

import svcs
from flask import Blueprint, Response, current_app, jsonify

from app.extensions import is_operator, require_operator
from app.services import UPGRADE, check_services
from config import Settings, project_release, project_version

blueprint = Blueprint("ops", __name__)
logger = logging.getLogger(__name__)


@blueprint.get("/livez")
def livez() -> Response:
    """The process answers; nothing else is asked."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Whether everything that a request may need is there: 200 or 503.

    Operators get what is not, and which release says so. Others make no work: they get what was found in this second.
    """
    checked, found = current_app.extensions.get("ready", (-1, {}))
    if (inside := is_operator()) or checked < time.monotonic() - 1:
        found = check_services()
        current_app.extensions["ready"] = time.monotonic(), found
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
    if not inside:
        return jsonify(status=status), code
    results = {name: in_words(error) for name, error in found.items()}
    return jsonify(status=status, checks=results, release=project_release(svcs.flask.get(Settings).root)), code


@blueprint.get("/version")
def version() -> Response:
    require_operator()
    settings = svcs.flask.get(Settings)
    numbers = {"version": project_version(settings.root), "release": project_release(settings.root)}
    return jsonify(service=settings.app.slug, **numbers)


def in_words(error: Exception | None) -> str:
    """What may be told to everybody; the message of an error can hold an address or a password."""
    if error and UPGRADE in str(error):
        return UPGRADE
    return f"failed: {type(error).__name__}" if error else "ok"
