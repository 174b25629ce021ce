"""What the queue promises to those who write and send jobs, with Dramatiq's own worker in this process."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from dramatiq.middleware import TimeLimit
from sqlalchemy.orm import Session

from tests.infrastructure.queue.conftest import Queue
from tests.infrastructure.queue.workers import Place, eventually, wait_until_empty

AT_ONCE: dict[str, Any] = {"min_backoff": 1, "max_backoff": 1}


def fail() -> None:
    raise ValueError("never")


def finish(queue: Queue) -> None:
    """Let a worker run until nothing is left."""
    queue.work()
    wait_until_empty(queue.broker)
    queue.stop()


def test_a_job_runs_with_its_arguments_and_is_gone(queue: Queue) -> None:
    calls = []
    queue.actor(lambda *args, **kwargs: calls.append((args, kwargs))).send(1, "ä\0", [None], key={"a": 0.5})
    finish(queue)
    assert calls == [((1, "ä\0", [None]), {"key": {"a": 0.5}})]
    assert queue.rows() == []


def test_a_job_exists_if_and_only_if_its_transaction_commits(queue: Queue) -> None:
    ran: list[int] = []
    job = queue.actor(ran.append)
    queue.work()
    with Session(queue.engine) as queue.session:
        job.send(1)
        queue.session.rollback()
        job.send(2)
        with queue.session.begin_nested():
            job.send(3)
        savepoint = queue.session.begin_nested()
        job.send(4)
        savepoint.rollback()
        assert queue.rows() == []
        queue.session.commit()
        job.send(5)
    queue.session = None
    job.send(6)
    wait_until_empty(queue.broker)
    assert sorted(ran) == [2, 3, 6]


def test_a_job_that_fails_runs_again_later(queue: Queue) -> None:
    tries = []

    def fail_twice() -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise ValueError("not yet")

    queue.actor(fail_twice, min_backoff=60, max_backoff=60).send()
    finish(queue)
    # Dramatiq takes half of the time, and adds up to as much at random.
    assert min(tries[1] - tries[0], tries[2] - tries[1]) >= 0.03
    assert queue.rows() == []


@pytest.mark.parametrize("options", [{"max_retries": 2, **AT_ONCE}, {"throws": ValueError}])
def test_a_job_that_fails_for_good_is_set_aside_with_its_traceback(queue: Queue, options: dict[str, Any]) -> None:
    queue.actor(fail, **options).send()
    queue.work()
    row = queue.dead()
    assert (row.queue, row.actor, row.owner) == ("default", "job", None)
    assert "in fail" in str(row.error)
    assert str(row.error).endswith("ValueError: never\n")


def test_an_actor_is_told_of_a_job_that_has_failed_for_good(queue: Queue) -> None:
    told = []
    queue.actor(lambda message, retries: told.append((message["args"], retries)), "told")
    queue.actor(lambda _: fail(), max_retries=1, on_retry_exhausted="told", **AT_ONCE).send(7)
    queue.work()
    eventually(lambda: [(list(args), retries) for args, retries in told] == [([7], {"retries": 1, "max_retries": 1})])


def test_a_job_that_no_actor_has_is_set_aside(queue: Queue) -> None:
    queue.actor(fail, "other")
    queue.send(1)
    queue.work()
    assert "ActorNotFound" in str(queue.dead().error)


def test_arguments_that_are_no_json_fail_at_the_sender(queue: Queue) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        queue.actor(fail).send(object())
    assert queue.rows() == []


def test_a_delayed_job_does_not_run_early(queue: Queue) -> None:
    ran_at = []
    job = queue.actor(lambda: ran_at.append(time.monotonic()))
    queue.work()
    sent_at = time.monotonic()
    job.send_with_options(delay=timedelta(milliseconds=150))
    eventually(lambda: ran_at)
    # The database's clock has milliseconds.
    assert ran_at[0] - sent_at >= 0.149


def test_a_job_that_has_become_too_old_is_set_aside(queue: Queue) -> None:
    ran = threading.Event()
    job = queue.actor(ran.set, max_age=60_000)
    queue.broker.enqueue(job.message().copy(message_timestamp=0))
    queue.work()
    assert "age" in str(queue.dead().error)
    assert not ran.is_set()


def test_a_job_that_runs_too_long_is_interrupted(queue: Queue) -> None:
    def run() -> None:
        while True:
            time.sleep(0.001)

    (limit,) = (part for part in queue.broker.middleware if isinstance(part, TimeLimit))
    limit.manager.interval = 0.01  # type: ignore[union-attr]
    queue.broker.emit_after("process_boot")
    queue.actor(run, time_limit=50, max_retries=0).send()
    queue.work()
    assert "TimeLimitExceeded" in str(queue.dead().error)
    limit.manager.interval = 60  # type: ignore[union-attr]


def test_a_worker_runs_only_its_queues(queue: Queue) -> None:
    ran: list[int] = []
    queue.actor(ran.append).send(1)
    queue.actor(ran.append, "mail", queue_name="mail").send(2)
    queue.work(queues={"mail"})
    wait_until_empty(queue.broker, "mail")
    queue.stop()
    assert ran == [2]
    assert [row.queue for row in queue.rows()] == ["default"]
    finish(queue)
    assert ran == [2, 1]


@pytest.mark.slow
def test_a_worker_goes_on_when_its_database_is_back(
    queue: Queue, place: Place, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    if place.database.startswith("sqlite"):
        pytest.skip("a file is not away")
    server = request.getfixturevalue("postgres_server")
    ran: list[int] = []
    job = queue.actor(ran.append)
    queue.work()
    job.send(1)
    eventually(lambda: ran == [1])
    server.stop()
    eventually(lambda: "Consumer encountered a connection error" in caplog.text)
    server.start()
    job.send(2)
    wait_until_empty(queue.broker)
    assert ran == [1, 2]
    assert "Traceback" not in caplog.text
