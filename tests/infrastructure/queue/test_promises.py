"""What the queue promises, on every broker alike."""

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import QueueJoinTimeout
from dramatiq.middleware import GroupCallbacks, TimeLimit
from dramatiq.rate_limits.backends import StubBackend
from sqlalchemy.orm import Session

from database.messages import DEAD, LATER
from tests.infrastructure.queue.conftest import OpenQueue, Queue, see_leases_renewed
from tests.infrastructure.queue.workers import Place, Workers, chaos, eventually

AT_ONCE: dict[str, Any] = {"min_backoff": 1, "max_backoff": 1}


def fail() -> None:
    raise ValueError("never")


def test_a_job_runs_with_its_arguments_and_is_gone(queue: Queue) -> None:
    calls = []
    job = queue.actor(lambda *args, **kwargs: calls.append((args, kwargs)))
    job.send(1, "ä\0", [None], key={"a": 0.5})
    queue.work()
    queue.broker.join("default", timeout=20_000)
    eventually(lambda: calls == [((1, "ä\0", [None]), {"key": {"a": 0.5}})])
    assert queue.rows() == []


def test_a_job_exists_if_and_only_if_its_transaction_commits(queue: Queue) -> None:
    ran: list[int] = []
    job = queue.actor(ran.append)
    queue.work()
    with Session(queue.engine) as queue.session:
        job.send(1)
        queue.session.rollback()
        job.send(2)
        queue.session.commit()
        job.send(3)
        assert queue.table.count("default") <= 1
    queue.session = None
    job.send(4)
    eventually(lambda: 4 in ran)
    queue.broker.join("default", timeout=20_000)
    assert sorted(ran) == [2, 4]


def test_a_job_does_not_run_before_its_transaction_commits(queue: Queue) -> None:
    ran = threading.Event()
    job = queue.actor(ran.set)
    with Session(queue.engine) as queue.session:
        job.send()
        queue.work()
        # Longer than a worker needs for a job that it can see, as the next test but one shows.
        assert not ran.wait(0.1)
        queue.session.commit()
    assert ran.wait(20)


def test_a_job_that_fails_runs_again_later(queue: Queue) -> None:
    tries = []

    def fail_twice() -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise ValueError("not yet")

    queue.actor(fail_twice, min_backoff=60, max_backoff=60).send()
    queue.work()
    eventually(lambda: len(tries) == 3)
    queue.broker.join("default", timeout=20_000)
    # Dramatiq takes half of the time, and adds up to as much at random.
    assert min(tries[1] - tries[0], tries[2] - tries[1]) >= 0.03
    assert queue.rows() == []


@pytest.mark.parametrize("options", [{"max_retries": 2, **AT_ONCE}, {"throws": ValueError}])
def test_a_job_that_fails_for_good_is_set_aside_with_its_traceback(queue: Queue, options: dict[str, Any]) -> None:
    queue.actor(fail, **options).send()
    queue.work()
    (row,) = queue.dead()
    assert (row.state, row.queue, row.actor, row.owner) == (DEAD, "default", "job", None)
    assert row.error
    assert "in fail" in row.error
    assert row.error.endswith("ValueError: never\n")


@pytest.fixture
def no_logs() -> Iterator[None]:
    """Keeps what is logged away from the tests' reports."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_logs")
def test_a_traceback_may_hold_what_a_database_cannot_store(queue: Queue) -> None:
    def fail() -> None:
        raise ValueError("\0 \ud800")

    queue.actor(fail, max_retries=0).send()
    queue.work()
    (row,) = queue.dead()
    assert row.error
    assert row.error.endswith(r"ValueError: \x00 \ud800" + "\n")


def test_someone_can_be_told_of_a_job_that_has_failed_for_good(queue: Queue) -> None:
    told = []
    queue.actor(lambda message, retries: told.append((message["args"], retries)), "told")
    queue.actor(lambda _: fail(), max_retries=1, on_retry_exhausted="told", **AT_ONCE).send(7)
    queue.work()
    eventually(lambda: [(list(args), retries) for args, retries in told] == [([7], {"retries": 1, "max_retries": 1})])


def test_a_job_that_nobody_knows_is_set_aside(queue: Queue) -> None:
    queue.actor(fail)
    unknown = dramatiq.Message[None](queue_name="default", actor_name="removed", args=(), kwargs={}, options={})
    queue.broker.enqueue(unknown)
    queue.work()
    (row,) = queue.dead()
    assert row.actor == "removed"
    assert row.error
    assert "ActorNotFound" in row.error


@pytest.mark.parametrize("argument", [object(), b"bytes", {"deep": {1, 2}}])
def test_arguments_that_are_no_json_fail_at_the_sender(queue: Queue, argument: object) -> None:
    with pytest.raises(TypeError, match=r"^job: arguments of a job have to be JSON: "):
        queue.actor(fail).send(argument)
    assert queue.rows() == []


def test_a_delayed_job_does_not_run_early(queue: Queue) -> None:
    ran_at = []
    job = queue.actor(lambda: ran_at.append(time.monotonic()))
    queue.work()
    sent_at = time.monotonic()
    job.send_with_options(delay=150)
    eventually(lambda: ran_at)
    # The database's clock has milliseconds.
    assert ran_at[0] - sent_at >= 0.149


def test_a_job_that_has_become_too_old_is_set_aside(queue: Queue) -> None:
    ran = threading.Event()
    job = queue.actor(ran.set, max_age=60_000)
    queue.broker.enqueue(job.message().copy(message_timestamp=0))
    queue.work()
    (row,) = queue.dead()
    assert row.error
    assert "age" in row.error
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
    (row,) = queue.dead()
    assert row.error
    assert "TimeLimitExceeded" in row.error
    limit.manager.interval = 60  # type: ignore[union-attr]


def test_of_waiting_jobs_the_lower_number_goes_first(queue: Queue) -> None:
    ran: list[str] = []
    last, first = (queue.actor(ran.append, name, priority=priority) for name, priority in (("last", 5), ("first", -5)))
    for _ in range(2):
        last.send("last")
    for _ in range(2):
        first.send("first")
    queue.work(threads=1)
    eventually(lambda: len(ran) == 4)
    assert ran == ["first", "first", "last", "last"]


def test_pipelines_groups_and_callbacks_work(queue: Queue) -> None:
    ran: list[object] = []
    queue.broker.add_middleware(GroupCallbacks(StubBackend()))
    add = queue.actor(lambda first, second: first + second, "add")
    note = queue.actor(ran.append, "note")
    whole = queue.actor(lambda: ran.append("group"), "whole")
    queue.actor(lambda message, result: ran.append((message["args"][0], result)), "success")
    queue.work()
    dramatiq.pipeline([add.message(1, 2), add.message(3), note.message()], broker=queue.broker).run()
    eventually(lambda: ran == [6])
    add.send_with_options(args=(1, 1), on_success="success")
    eventually(lambda: ran[1:] == [(1, 2)])
    group = dramatiq.group([note.message("one"), note.message("two")], broker=queue.broker)
    group.add_completion_callback(whole.message())
    group.run()
    eventually(lambda: len(ran) == 5)
    assert set(ran[2:4]) == {"one", "two"}
    assert ran[4] == "group"


def test_a_queue_has_only_its_own_jobs_and_a_worker_only_its_queues(queue: Queue) -> None:
    ran: list[int] = []
    queue.actor(ran.append).send(1)
    mail = queue.actor(ran.append, "mail", queue_name="mail")
    mail.send(2)
    assert queue.broker.get_declared_queues() == {"default", "mail"}
    queue.work(queues={"mail"})
    eventually(lambda: ran == [2])
    queue.stop()
    assert (queue.table.count("default"), queue.table.count("mail")) == (1, 0)
    queue.work()
    mail.send(3)
    eventually(lambda: sorted(ran) == [1, 2, 3])


def test_join_waits_for_what_waits_and_gives_up_in_time(queue: Queue) -> None:
    job = queue.actor(lambda: None)
    job.send_with_options(delay=3_600_000)
    with pytest.raises(QueueJoinTimeout):
        queue.broker.join("default", timeout=1)
    queue.move_clock(3_600)
    queue.work()
    queue.broker.join("default", timeout=20_000)
    assert queue.rows() == []


def test_flush_drops_what_waits_and_keeps_what_was_set_aside(open_queue: OpenQueue) -> None:
    worker, queue = open_queue(), open_queue()
    worker.actor(fail, "fail", max_retries=0).send()
    worker.work()
    queue.dead()
    worker.stop()
    # Until then it passes messages on, one of which might be on its way.
    worker.broker.close()
    ran: list[int] = []
    job = queue.actor(ran.append)
    mail = queue.actor(ran.append, "mail", queue_name="mail")
    job.send(1)
    job.send_with_options(args=(2,), delay=1)
    mail.send(3)
    queue.broker.flush("default")
    assert [(row.queue, row.state == DEAD) for row in queue.rows()] == [("default", True), ("mail", False)]
    queue.broker.flush_all()
    job.send(4)
    queue.work()
    eventually(lambda: ran == [4])


def test_a_worker_can_be_stopped_and_another_started_in_one_process(queue: Queue) -> None:
    ran: list[int] = []
    job = queue.actor(ran.append)
    for number in range(3):
        job.send(number)
        queue.work()
        eventually(lambda: ran[-1:] == [number])  # noqa: B023
        queue.stop()


def test_a_broker_can_be_closed_twice(queue: Queue) -> None:
    queue.actor(lambda: None).send()
    queue.work()
    queue.broker.join("default", timeout=20_000)
    queue.stop()
    queue.broker.close()
    queue.broker.close()


def test_a_message_that_is_sent_twice_runs_twice(queue: Queue) -> None:
    ran: list[int] = []
    message = queue.actor(ran.append).message(1)
    queue.broker.enqueue(message)
    queue.broker.enqueue(message)
    queue.work()
    eventually(lambda: ran == [1, 1])
    queue.broker.join("default", timeout=20_000)


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_finishes_its_job_and_gives_back_the_rest(place: Place) -> None:
    place.send("wait", 0)
    place.send("work", 1, 2, 3)
    with Workers(place) as workers:
        first = workers.start()
        eventually(lambda: place.numbers("start"))
        assert first.pid
        os.kill(first.pid, signal.SIGTERM)
        place.release()
        first.join(20)
        assert first.exitcode == 0
        assert 0 in place.numbers("end")
        workers.start()
        # The lease would be half a minute.
        eventually(lambda: set(place.numbers("end")) == {0, 1, 2, 3}, place.lease / 2)
    assert sorted(place.numbers("start")) == [0, 1, 2, 3]


@pytest.mark.slow
def test_the_jobs_of_a_worker_that_is_killed_run_again_when_its_lease_has_ended(hasty: Place) -> None:
    hasty.send("wait", 0)
    hasty.send("work", 1, 2, 3)
    with Workers(hasty) as workers:
        first = workers.start()
        eventually(lambda: hasty.numbers("start"))
        workers.kill(first)
        hasty.release()
        workers.start()
        eventually(lambda: set(hasty.numbers("end")) == {0, 1, 2, 3})
    repeated = Counter(hasty.numbers("start")) - Counter(range(4))
    assert repeated[0] == 1
    # RabbitMQ may have been given some twice that were on their way when the worker was killed.
    if not hasty.queue.startswith("amqp"):
        assert repeated.total() == 1


@pytest.mark.slow
def test_a_delayed_job_outlives_all_workers(hasty: Place) -> None:
    hasty.send("work", 1, delay=1500)
    sent_at = time.monotonic()
    with Workers(hasty) as workers:
        hasty.send("work", 0)
        first = workers.start()
        # On a busy machine, both may have ended when it is looked.
        eventually(lambda: 0 in hasty.numbers("end"))
        workers.kill(first)
        workers.start()
        eventually(lambda: 1 in hasty.numbers("end"))
    (start,) = (note for note in hasty.notes() if (note.what, note.number) == ("start", 1))
    assert start.at - sent_at >= 1.4


@pytest.mark.slow
def test_a_long_job_runs_once_while_others_look_for_work(open_queue: OpenQueue) -> None:
    starts = []
    finish = threading.Event()

    def run() -> None:
        starts.append(1)
        finish.wait(60)

    for _ in range(2):
        queue = open_queue(lease=3)
        job = queue.actor(run)
        queue.work()
    job.send()
    eventually(lambda: starts)
    see_leases_renewed(queue, 1)
    finish.set()
    queue.broker.join("default", timeout=20_000)
    assert len(starts) == 1


# Whether RabbitMQ has a message cannot be asked. A kill between handing one over and deleting it in the database
# repeats it, be it running or not.
@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_set_aside_and_takes_no_other_with_it(
    backend: str, hasty: Place, queue: Queue
) -> None:
    place = replace(hasty, lease=0.5)
    innocent = range(1, 13)
    place.send("work", *innocent[:6], seconds=0.01)
    place.send("die", 0)
    place.send("work", *innocent[6:], seconds=0.01)

    def over() -> bool:
        workers.keep(1, threads=3)
        return set(place.numbers("end")) == set(innocent) and 0 in place.numbers("told")

    with Workers(place) as workers:
        eventually(over)
        row, *copies = queue.dead()
    assert row.error
    assert "handed out 3 times, and its worker died each time" in row.error
    assert {row.actor, *(copy.actor for copy in copies)} == {"die"}
    if backend != "rabbitmq":
        assert not copies
        assert place.numbers("start").count(0) == 3


@pytest.mark.slow
def test_random_kills_lose_no_job_and_repeat_none_that_was_not_running(backend: str, hasty: Place) -> None:
    damage = chaos(replace(hasty, lease=3, max_deliveries=5), jobs=60, kills=6)
    assert (damage.lost, damage.set_aside) == ([], 0)
    assert len(damage.unexplained) <= (6 if backend == "rabbitmq" else 0)


def test_what_waits_for_its_time_is_in_the_database(queue: Queue) -> None:
    queue.actor(fail, min_backoff=3_600_000).send()
    queue.work()
    eventually(lambda: [(row.state, row.owner) for row in queue.rows()] == [(LATER, None)])
