"""Jobs on Dramatiq's own worker, with the queue in the database."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import OperationalError

from database import sessions
from database.broker import DatabaseBroker, QueueMessage


@pytest.fixture
def broker(engine: Engine) -> DatabaseBroker:
    return DatabaseBroker(engine, poll_interval=0.01)


@pytest.fixture
def work(broker: DatabaseBroker) -> Iterator[Callable[..., dramatiq.Worker]]:
    """Starts a worker, which is stopped at the end of the test."""
    before, workers = set(threading.enumerate()), []

    def start(threads: int = 2) -> dramatiq.Worker:
        workers.append(dramatiq.Worker(broker, worker_threads=threads, worker_timeout=10))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()
    for heartbeat in set(threading.enumerate()) - before:
        heartbeat.join()


def declare(broker: DatabaseBroker, function: Callable[..., None], **options: Any) -> dramatiq.Actor[..., None]:
    return dramatiq.actor(broker=broker, actor_name="job", **options)(function)


def rows(broker: DatabaseBroker) -> list[QueueMessage]:
    with sessions(broker.engine, read_only=True)() as session:
        return list(session.scalars(select(QueueMessage).order_by(QueueMessage.id)))


def test_a_job_runs_with_its_arguments_and_is_gone(
    broker: DatabaseBroker, work: Callable[..., dramatiq.Worker]
) -> None:
    calls = []
    job = declare(broker, lambda *args, **kwargs: calls.append((args, kwargs)))
    job.send(1, "ä", [None], key={"a": 0.5})
    work()
    broker.join("default", timeout=10_000)
    assert calls == [((1, "ä", [None]), {"key": {"a": 0.5}})]
    assert rows(broker) == []


def test_a_job_that_fails_is_tried_again(broker: DatabaseBroker, work: Callable[..., dramatiq.Worker]) -> None:
    tries = []

    def fail_twice() -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise ValueError("not yet")

    declare(broker, fail_twice, min_backoff=1, max_backoff=1).send()
    work()
    broker.join("default", timeout=10_000)
    assert len(tries) == 3
    assert rows(broker) == []


def fail() -> None:
    raise ValueError("never")


@pytest.mark.parametrize("options", [{"max_retries": 1, "min_backoff": 1, "max_backoff": 1}, {"throws": ValueError}])
def test_a_job_that_fails_for_good_is_set_aside_with_its_traceback(
    broker: DatabaseBroker, work: Callable[..., dramatiq.Worker], options: dict[str, Any]
) -> None:
    declare(broker, fail, **options).send()
    work()
    broker.join("default", timeout=10_000)
    (row,) = rows(broker)
    assert (row.state, row.actor, row.owner) == (DEAD, "job", None)
    assert row.error
    assert "in fail" in row.error
    assert row.error.endswith("ValueError: never\n")


def test_a_job_that_nobody_knows_is_set_aside_and_named(
    broker: DatabaseBroker, work: Callable[..., dramatiq.Worker]
) -> None:
    broker.declare_queue("default")
    broker.enqueue(dramatiq.Message[None](queue_name="default", actor_name="removed", args=(), kwargs={}, options={}))
    work()
    broker.join("default", timeout=10_000)
    (row,) = rows(broker)
    assert (row.state, row.actor) == (DEAD, "removed")
    assert row.error
    assert "ActorNotFound" in row.error


def test_a_delayed_job_does_not_run_early(broker: DatabaseBroker, work: Callable[..., dramatiq.Worker]) -> None:
    ran_at = []
    job = declare(broker, lambda: ran_at.append(time.time()))
    work()
    sent_at = time.time()
    job.send_with_options(delay=80)
    broker.join("default", timeout=10_000)
    assert ran_at[0] - sent_at >= 0.08


def test_a_worker_that_stops_finishes_what_runs_and_gives_back_the_rest(
    broker: DatabaseBroker, work: Callable[..., dramatiq.Worker]
) -> None:
    started, finish, done = threading.Event(), threading.Event(), []

    def job(number: int) -> None:
        started.set()
        finish.wait(10)
        done.append(number)

    actor = declare(broker, job)
    for number in range(4):
        actor.send(number)
    worker = work(threads=1)
    assert started.wait(10)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    while worker.workers[0].running:
        time.sleep(0.001)
    finish.set()
    stopping.join(10)
    assert done == [0]
    assert [(row.owner, row.deliveries, row.due <= time.time()) for row in rows(broker)] == [(None, 0, True)] * 3


def test_a_worker_outlives_a_database_that_fails_for_a_while(
    broker: DatabaseBroker, work: Callable[..., dramatiq.Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.01)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.01)
    started, finish, down, failures = threading.Event(), threading.Event(), threading.Event(), []
    done: list[str] = []

    def job(name: str) -> None:
        started.set()
        finish.wait(10)
        done.append(name)

    @event.listens_for(broker.engine, "begin")
    def fail_while_down(_: object) -> None:
        if down.is_set():
            failures.append(threading.current_thread())
            raise OperationalError("BEGIN", None, Exception("the server is restarting"))

    actor = declare(broker, job)
    actor.send("before")
    work(threads=1)
    assert started.wait(10)
    down.set()
    finish.set()
    deadline = time.monotonic() + 10
    while len(set(failures)) < 2 or len(failures) < 6:  # The worker's thread, and its consumer's.
        assert time.monotonic() < deadline
        time.sleep(0.001)
    down.clear()
    actor.send("after")
    broker.join("default", timeout=10_000)
    assert done == ["before", "after"]
