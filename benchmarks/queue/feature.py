"""A feature of the generated service while it is measured: it is copied to `app/bench/__init__.py`."""

import dramatiq
import svcs
from flask import Blueprint, Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.extensions import csrf
from benchmarks.queue import jobs

__all__ = ["register"]

INSERT = text("INSERT INTO bench_row (note) VALUES ('a row') RETURNING id")

noop = dramatiq.actor(jobs.noop)
nothing = dramatiq.actor(jobs.nothing)
stamp = dramatiq.actor(jobs.stamp)


def register(app: Flask) -> None:
    """Add two views, without CSRF tokens: what is measured comes after their check."""
    blueprint = Blueprint("bench", __name__, url_prefix="/bench")
    blueprint.add_url_rule("/row", view_func=write_row, methods=["POST"])
    blueprint.add_url_rule("/job", view_func=write_row_and_send_job, methods=["POST"])
    csrf.exempt(blueprint)
    app.register_blueprint(blueprint)


def write_row() -> tuple[str, int]:
    """Write a row."""
    svcs.flask.get(Session).execute(INSERT)
    return "", 204


def write_row_and_send_job() -> tuple[str, int]:
    """Write a row and send a job that is told its number."""
    nothing.send(svcs.flask.get(Session).execute(INSERT).scalar_one())
    return "", 204
