"""The nightly job, from its schedule through the queue to a worker."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import svcs
from flask import Flask
from sqlalchemy import Engine, select, update

from app.jobs import remove_expired
from app.services import transaction
from database import utc_now
from database.broker import QueueMessage
from database.job_counts import JobCount
from database.rate_limits import RateLimit, hit
from database.schedule import SCHEDULES, ScheduleSlot, send_due, send_slot

SCHEDULE = SCHEDULES[remove_expired.actor_name]
DAY = 24 * 3600


def test_a_slot_that_is_due_becomes_a_job_that_a_worker_does(app: Flask, work: Callable[[], int]) -> None:
    now = utc_now()
    for moment in (now - timedelta(days=1), now):
        with transaction(app) as session:
            send_due(SCHEDULE, session, moment, enabled=True)
    assert work() == 0
    with transaction(app) as session:
        row = session.get_one(ScheduleSlot, ("remove_expired", SCHEDULE.latest_slot(now)))
    assert row.outcome == "done"


@pytest.fixture
def clean_up(app: Flask, work: Callable[[], int]) -> Callable[[], None]:
    """Runs the job."""

    def clean_up() -> None:
        remove_expired.send(utc_now().isoformat())
        assert work() in (0, 1)

    return clean_up


def test_rate_limits_that_have_expired_go(app: Flask, clean_up: Callable[[], None]) -> None:
    with app.app_context():
        engine = svcs.flask.get(Engine)
    hit(engine, "1 per 0 seconds", "expired")
    hit(engine, "1 per minute", "running")
    clean_up()
    with transaction(app) as session:
        assert list(session.scalars(select(RateLimit.key))) == ["running 1 per minute"]


def test_old_slots_go(app: Flask, clean_up: Callable[[], None]) -> None:
    with transaction(app) as session:
        for days in (1, 1000):
            slot = utc_now() - timedelta(days=days)
            send_slot(SCHEDULE, session, slot)
            session.get_one(ScheduleSlot, ("remove_expired", slot)).sent = slot
    clean_up()
    with transaction(app) as session:
        [row] = session.scalars(select(ScheduleSlot))
    assert row.sent > utc_now() - timedelta(days=2)


def test_old_failed_jobs_go(app: Flask, fragile: Any, work: Callable[[], int], clean_up: Callable[[], None]) -> None:
    old, young = (fragile.send("broken").message_id for _ in range(2))
    assert work() == 2
    with transaction(app) as session:
        aged = update(QueueMessage).where(QueueMessage.message_id == old).values(due=time.time() - 1000 * DAY)
        session.execute(aged)
    clean_up()
    with transaction(app) as session:
        assert list(session.scalars(select(QueueMessage.message_id))) == [young]


def test_old_counts_go(app: Flask, clean_up: Callable[[], None]) -> None:
    with transaction(app) as session:
        for age in (0, 3):
            session.add(JobCount(hour=int(time.time() - age * DAY), actor="old", outcome="done", jobs=age))
    clean_up()
    with transaction(app) as session:
        assert list(session.scalars(select(JobCount.jobs).where(JobCount.actor == "old"))) == [0]
