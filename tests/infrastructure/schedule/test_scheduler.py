"""Schedulers as they run: they survive errors and a database that is away, and kills do no harm."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dramatiq.brokers.stub import StubBroker
from flask import Flask
from sqlalchemy import literal
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from config import ROOT, Settings
from database import schedule
from database.schedule import run
from tests.conftest import SECRET
from tests.infrastructure.schedule.chaos import chaos
from tests.infrastructure.schedule.conftest import Ledger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Passes(threading.Event):
    """Stops a scheduler's loop after some passes, instead of waiting between them."""

    def __init__(self, count: int, between: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.left, self.between = count, between
        self.pauses: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        self.left -= 1
        self.between()
        if not self.left:
            self.set()
        return True


@pytest.fixture
def two(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger with two hourly schedules that begin at noon, and a clock that stands at one."""
    known = {name: ledger.schedule(name=name) for name in ("one", "two")}
    monkeypatch.setattr(schedule, "SCHEDULES", known)
    monkeypatch.setattr(schedule, "database_time", lambda: literal(NOON.timestamp() + 3600 - 0.5))
    for due in known.values():
        ledger.send(due, NOON - timedelta(hours=1))
    return ledger


def test_the_loop_goes_on_after_an_error(two: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [KeyError("unexpected")]

    @contextmanager
    def transaction() -> Iterator[Session]:
        with two.transaction() as session:
            yield session
            if errors:
                raise errors.pop()

    run(transaction, Passes(2), ())
    assert two.sent() == ["two 2026-01-01T12:00", "one 2026-01-01T12:00"]
    (error,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert error.getMessage() == "schedule one: not sent, trying again: 'unexpected'"
    assert error.exc_info


def test_a_database_that_is_away_is_one_line_a_try(two: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    passes = Passes(4)

    @contextmanager
    def transaction() -> Iterator[Session]:
        if passes.left > 1:
            raise OperationalError("SELECT", None, Exception("the server is restarting"))
        with two.transaction() as session:
            yield session

    run(transaction, passes, ())
    assert two.sent() == ["one 2026-01-01T12:00", "two 2026-01-01T12:00"]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [error.getMessage() for error in errors] == [
        "schedule one: not sent, trying again: the server is restarting"
    ] * 3
    assert not any(error.exc_info for error in errors)


def test_a_slot_is_sent_later_if_the_server_of_the_queue_is_away(two: Ledger) -> None:
    class Server(StubBroker):
        def check(self) -> None:
            if passes.left > 1:
                raise ConnectionError

    seen: list[int] = []
    passes = Passes(3, between=lambda: seen.append(two.outcomes().count("sent")))
    for due in schedule.SCHEDULES.values():
        due.actor.broker = Server()
        due.actor.broker.declare_actor(due.actor)
    run(two.transaction, passes, ())
    assert seen == [0, 0, 2]


def test_the_loop_waits_until_the_next_slot_and_never_long(two: Ledger) -> None:
    passes = Passes(2)
    run(two.transaction, passes, ("one", "two"))
    assert passes.pauses == [pytest.approx(0.5, abs=0.01)] * 2
    assert two.outcomes() == ["skipped"] * 4


def test_a_scheduler_that_waits_ends_when_it_is_told_to(app: Flask, settings: Settings) -> None:
    environ = {**os.environ, "APP_ENV": "testing", "APP_DIR": str(settings.app_dir.path), "SECRET_KEY": SECRET}
    options: Any = {"cwd": ROOT, "env": environ, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "scheduler.py"], **options) as process:
        assert process.stderr
        assert any("scheduler runs" in line for line in process.stderr)
        process.terminate()
        assert process.wait(schedule.LONGEST_PAUSE) == 0


@pytest.mark.parametrize("schedulers", [2, 5])
def test_each_slot_is_sent_once_by_schedulers_that_are_killed_all_the_time(url: str, schedulers: int) -> None:
    found = chaos(url, schedulers, jobs=20, hours=10)
    assert found == {"kills": 20, "slots": 200, "missed": 0, "sent twice": 0}
