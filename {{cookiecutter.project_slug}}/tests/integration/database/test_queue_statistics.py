"""What the queues did, minute by minute."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from app.services import transaction
from database import queue_statistics, sessions, utc_now
from database.broker import TableBroker
from database.queue_statistics import JobCounts, QueueMinute

MINUTE = timedelta(minutes=1)


@pytest.fixture
def broker(app: Flask) -> TableBroker:
    broker = dramatiq.get_broker()
    assert isinstance(broker, TableBroker)
    return broker


def rows(engine: Engine) -> list[QueueMinute]:
    with sessions(engine, read_only=True)() as session:
        return queue_statistics.minutes(session, datetime(2000, 1, 1, tzinfo=UTC))


def proxy(broker: TableBroker, queue: str = "default", *, failed: bool = False) -> Any:
    message = dramatiq.MessageProxy(dramatiq.Message(queue, "job", (), {}, {}))
    if failed:
        message.fail()
    return message


def run(counts: JobCounts, broker: TableBroker, message: Any, exception: Exception | None = None) -> None:
    counts.before_process_message(broker, message)
    counts.after_process_message(broker, message, exception=exception)


def test_a_worker_counts_its_jobs(app: Flask, broker: TableBroker, work: Callable[[], int]) -> None:
    def fragile(fails: bool) -> None:
        if fails:
            raise ValueError

    actor = dramatiq.actor(max_retries=0)(fragile)
    try:
        for fails in (False, True, False):
            actor.send(fails)
        assert work() == 1
    finally:
        del broker.actors["fragile"]
    found = rows(broker.table.engine)
    assert (sum(row.done for row in found), sum(row.failed for row in found)) == (2, 1)
    assert all(row.seconds > 0 for row in found)
    assert {(row.queue, row.waiting) for row in found} == {("default", None)}


def test_counts_of_several_workers_add_up(app: Flask, broker: TableBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_statistics, "utc_now", lambda: datetime(2026, 1, 31, 12, 0, 59, tzinfo=UTC))
    workers = [JobCounts(broker.table.engine) for _ in range(2)]
    for counts in workers:
        run(counts, broker, proxy(broker))
        run(counts, broker, proxy(broker, "default.DQ"))
        run(counts, broker, proxy(broker, "other", failed=True))
        run(counts, broker, proxy(broker, "other"), ValueError())
        counts.after_worker_shutdown(broker, dramatiq.Worker(broker))
        assert counts.timer is None
    found = rows(broker.table.engine)
    assert [(row.minute.minute, row.minute.second, row.queue, row.done, row.failed) for row in found] == [
        (0, 0, "default", 4, 0),
        (0, 0, "other", 0, 4),
    ]


def test_counts_are_written_by_themselves_after_a_while(
    app: Flask, broker: TableBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_statistics, "COLLECT", 0.01)
    counts = JobCounts(broker.table.engine)
    for number in (1, 2):
        run(counts, broker, proxy(broker))
        if timer := counts.timer:
            timer.join(10)
        assert sum(row.done for row in rows(broker.table.engine)) == number


def test_counts_that_cannot_be_written_are_told_and_stop_nothing(
    app: Flask, broker: TableBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OperationalError("INSERT", None, Exception("database is locked"))

    counts = JobCounts(broker.table.engine)
    with monkeypatch.context() as patched:
        patched.setattr(queue_statistics, "_add", refuse)
        run(counts, broker, proxy(broker))
        counts.after_worker_shutdown(broker, dramatiq.Worker(broker))
    assert rows(broker.table.engine) == []
    run(counts, broker, proxy(broker))
    counts.after_worker_shutdown(broker, dramatiq.Worker(broker))
    assert [row.done for row in rows(broker.table.engine)] == [1]


def test_a_sample_notes_what_waits_beside_what_was_counted(app: Flask, broker: TableBroker) -> None:
    for queue in ("default", "default", "other"):
        broker.enqueue(dramatiq.Message(queue, "job", (), {}, {}))
    counts = JobCounts(broker.table.engine)
    run(counts, broker, proxy(broker))
    counts.write()
    queue_statistics.sample(broker)
    queue_statistics.sample(broker)
    found = rows(broker.table.engine)
    assert {row.queue: row.waiting for row in found if row.waiting is not None} == {"default": 2, "other": 1}
    assert sum(row.done for row in found) == 1
    with transaction(app) as session:
        assert queue_statistics.last_sample(session) == found[-1].minute


def test_a_sampler_goes_on_after_an_error_and_ends_when_told(
    app: Flask, broker: TableBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, seen = threading.Event(), []
    original = queue_statistics.sample

    def fragile(broker: TableBroker) -> None:
        seen.append(1)
        if len(seen) == 1:
            raise OperationalError("SELECT", None, Exception("gone"))
        original(broker)
        stop.set()

    monkeypatch.setattr(queue_statistics, "sample", fragile)
    # The clock is at the end of a minute.
    monkeypatch.setattr("time.time", lambda: 59.99)
    queue_statistics.sample_every_minute(broker, stop)
    assert len(seen) == 2
    with transaction(app) as session:
        assert queue_statistics.last_sample(session) is not None


def test_nothing_was_sampled_before_a_scheduler_ran(app: Flask) -> None:
    with transaction(app) as session:
        assert queue_statistics.last_sample(session) is None


def test_minutes_are_given_from_a_time_on_and_old_ones_forgotten(app: Flask) -> None:
    now = utc_now().replace(second=0, microsecond=0)
    with transaction(app) as session:
        for number in range(4):
            session.add(QueueMinute(minute=now - number * MINUTE, queue="default", waiting=number))
    with transaction(app) as session:
        assert [row.waiting for row in queue_statistics.minutes(session, now - 2 * MINUTE)] == [2, 1, 0]
        assert queue_statistics.forget_old(session, now - MINUTE) == 2
    with transaction(app) as session:
        assert [row.waiting for row in queue_statistics.minutes(session, now - 9 * MINUTE)] == [1, 0]


def test_writers_at_the_same_time_lose_nothing(app: Flask, broker: TableBroker) -> None:
    workers = [JobCounts(broker.table.engine) for _ in range(4)]

    def count(counts: JobCounts) -> None:
        for _ in range(5):
            run(counts, broker, proxy(broker))
            counts.write()

    threads = [threading.Thread(target=count, args=(counts,)) for counts in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(row.done for row in rows(broker.table.engine)) == 20
