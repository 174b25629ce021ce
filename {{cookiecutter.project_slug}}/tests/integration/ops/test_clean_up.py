"""The timed job, from its schedule through the queue to a worker."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select

from app.ops.jobs import remove_expired
from app.services import transaction
from database import utc_now
from database.rate_limits import RateLimit
from database.schedule import SCHEDULES, send_due


@pytest.fixture
def app(app: Flask) -> Flask:
    """The service with one rate limit that has expired and one that has not."""
    with transaction(app) as session:
        session.add(RateLimit(key="expired", hits=1, expires=time.time() - 1))
        session.add(RateLimit(key="running", hits=1, expires=time.time() + 60))
    return app


def rate_limits(app: Flask) -> list[str]:
    with transaction(app) as session:
        return list(session.scalars(select(RateLimit.key)))


def test_the_job_removes_what_has_expired_and_nothing_else(app: Flask) -> None:
    remove_expired("2026-01-01T03:30:00+00:00")
    assert rate_limits(app) == ["running"]


def test_a_slot_that_is_due_becomes_a_job_that_a_worker_does(app: Flask, work: Callable[[], int]) -> None:
    schedule = SCHEDULES[remove_expired.actor_name]
    now = utc_now()
    with transaction(app) as session:
        assert not send_due(schedule, session, now - timedelta(days=1), enabled=True)
    with transaction(app) as session:
        assert send_due(schedule, session, now, enabled=True)
    assert rate_limits(app) == ["expired", "running"]

    assert work() == 0
    assert rate_limits(app) == ["running"]
