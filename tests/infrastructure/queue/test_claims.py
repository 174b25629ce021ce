"""What consumers of the table promise: claims, leases, and what becomes of the messages of a process that dies.

No worker runs here; a test takes messages as a worker would, and moves the times in the table instead of waiting.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from dramatiq.errors import BrokerConnectionError
from sqlalchemy import event, update

from database import sessions
from database.broker import OVERTAKING, ClaimedMessage, DatabaseConsumer, QueueMessage
from tests.infrastructure.queue.conftest import OpenQueue, Queue
from tests.infrastructure.queue.workers import eventually

LEASE = 30.0


def consume(queue: Queue, name: str = "default") -> DatabaseConsumer:
    return queue.broker.consume(name, timeout=1)


def claim(consumer: DatabaseConsumer) -> ClaimedMessage:
    """The next message, which has to be there."""
    message = next(consumer)
    assert isinstance(message, ClaimedMessage)
    return message


def take(consumer: DatabaseConsumer, times: int) -> list[int]:
    """The numbers of the messages that are handed out in so many looks."""
    return [message.args[0] for _ in range(times) if (message := next(consumer))]


def test_messages_are_handed_out_in_the_order_they_were_sent(queue: Queue) -> None:
    queue.send(*range(10))
    consumer = consume(queue)
    for expected in range(10):
        message = claim(consumer)
        assert message.args == (expected,)
        consumer.ack(message)
    assert next(consumer) is None
    assert queue.rows() == []


def test_a_delayed_message_waits_until_it_is_due(open_queue: OpenQueue) -> None:
    queue = open_queue(threads=2)
    queue.send(1, delay=500_000)
    queue.send(2, delay=200_000)
    consumer = consume(queue)
    assert take(consumer, 1) == []
    queue.move_clock(250)
    assert take(consumer, 2) == [2]
    queue.move_clock(250.1)
    assert take(consumer, 2) == [1]


def test_of_the_oldest_messages_the_lowest_priority_number_goes_first(queue: Queue) -> None:
    for name, priority in (("normal", 0), ("last", 5), ("first", -5)):
        actor = queue.actor(print, name, priority=priority)
        for _ in range(OVERTAKING // 3):
            actor.send()
    consumer, taken = consume(queue), []
    while message := next(consumer):
        taken.append(message.actor_name)
        consumer.ack(message)  # type: ignore[arg-type]
    assert taken == sorted(taken, key=("first", "normal", "last").index)


def test_a_process_hands_out_no_more_than_its_threads_can_start(open_queue: OpenQueue) -> None:
    one, other = consume(open_queue(threads=2)), consume(queue := open_queue(threads=2))
    queue.send(1, 2, 3)
    first = claim(one)
    assert take(one, 2) == [2]
    assert take(other, 2) == [3]
    one.ack(first)
    queue.send(4)
    assert take(one, 2) == [4]


def test_what_is_claimed_ahead_goes_back_to_its_place_when_jobs_take_long(
    open_queue: OpenQueue, time_is_up: Callable[[], None]
) -> None:
    queue, other = open_queue(), consume(open_queue(threads=4))
    queue.send(1, 2, 3, 4)
    consumer = consume(queue)
    consumer.ack(claim(consumer))
    assert take(consumer, 1) == [2]
    assert take(other, 1) == []
    queue.send(5)
    time_is_up()
    assert take(consumer, 1) == []
    assert take(other, 4) == [3, 4, 5]
    assert {row.returns for row in queue.rows()} == {0}


def test_all_queues_of_a_process_share_its_threads(queue: Queue) -> None:
    queue.send(1)
    queue.send(2, queue="mail")
    default, mail = consume(queue), consume(queue, "mail")
    message = claim(mail)
    assert take(default, 1) == []
    mail.ack(message)
    assert take(mail, 1) == []
    assert take(default, 1) == [1]


def test_consumers_never_get_the_same_message(open_queue: OpenQueue) -> None:
    queue = open_queue()
    queue.send(*range(60))

    def drain(consumer: DatabaseConsumer) -> list[int]:
        found = []
        while queue.rows():
            if message := next(consumer):
                found.append(message.args[0])
                consumer.ack(message)  # type: ignore[arg-type]
        return found

    with ThreadPoolExecutor(3) as pool:
        found = pool.map(drain, [consume(open_queue(threads=3)) for _ in range(3)])
    assert sorted(itertools.chain(*found)) == list(range(60))


def test_messages_of_a_dead_process_are_due_again_when_its_lease_ends_and_not_before(open_queue: OpenQueue) -> None:
    dead, queue = consume(open_queue()), open_queue()
    other = consume(queue)
    queue.send(1)
    assert take(dead, 1) == [1]
    queue.move_clock(LEASE - 5)
    assert take(other, 1) == []
    queue.move_clock(5)
    assert take(other, 1) == [1]


def test_a_living_process_keeps_its_messages_beyond_the_lease(open_queue: OpenQueue) -> None:
    living = open_queue(lease=0.3)
    living.send(1)
    consumer = consume(living)
    message = claim(consumer)
    first_end = living.rows()[0].due
    eventually(lambda: not next(consumer) and living.rows()[0].due > first_end)
    consumer.ack(message)
    next(consumer)
    assert living.rows() == []


def test_a_process_does_not_run_twice_what_it_runs_when_the_lease_has_ended(open_queue: OpenQueue) -> None:
    queue = open_queue(threads=2)
    queue.send(1)
    consumer = consume(queue)
    message = claim(consumer)
    queue.move_clock(LEASE + 1)
    assert take(consumer, 1) == []
    consumer.ack(message)
    assert take(consumer, 1) == []
    assert queue.rows() == []


@pytest.mark.parametrize("finish", [DatabaseConsumer.ack, DatabaseConsumer.nack])
def test_a_process_whose_lease_has_ended_cannot_finish_what_another_has_taken(
    open_queue: OpenQueue, caplog: pytest.LogCaptureFixture, finish: Callable[[DatabaseConsumer, Any], None]
) -> None:
    queue = open_queue()
    queue.send(1)
    slow, fast = consume(queue), consume(open_queue())
    late = claim(slow)
    queue.move_clock(LEASE + 1)
    assert take(fast, 1) == [1]
    finish(slow, late)
    next(slow)
    (row,) = queue.rows()
    assert (row.dead, row.owner) == (False, fast.broker.owner)
    assert "may run again" in caplog.text


def test_of_messages_that_came_back_twice_a_process_holds_one(open_queue: OpenQueue) -> None:
    queue = open_queue(threads=4)
    queue.send(1, 2, 3)
    for _ in range(2):
        assert len(take(consume(open_queue(threads=4)), 3)) == 3
        queue.move_clock(LEASE + 1)
    queue.send(4)
    consumer = consume(queue)
    suspect = claim(consumer)
    assert take(consumer, 3) == [4]
    assert len(take(consume(open_queue(threads=4)), 3)) == 1
    consumer.ack(suspect)
    assert len(take(consumer, 3)) == 1
    assert {row.returns for row in queue.rows()} == {0, 2}


def test_messages_that_are_given_back_are_due_at_once_and_do_not_wear_out(open_queue: OpenQueue) -> None:
    queue = open_queue(threads=2)
    queue.send(1, 2)
    for _ in range(5):
        consumer = consume(queue)
        consumer.requeue([claim(consumer), claim(consumer)])
    assert [(row.dead, row.owner, row.returns) for row in queue.rows()] == [(False, None, 0)] * 2
    assert take(consume(queue), 2) == [1, 2]


def test_a_message_that_cannot_be_read_is_set_aside_and_its_neighbours_run(open_queue: OpenQueue) -> None:
    queue = open_queue(threads=3)
    queue.send(1, 2, 3)
    with sessions(queue.engine).begin() as session:
        session.execute(update(QueueMessage).where(QueueMessage.id == queue.rows()[1].id).values(payload=b"{"))
    assert take(consume(queue), 3) == [1, 3]
    assert "DecodeError" in str(queue.dead().error)


def test_a_traceback_may_hold_what_a_database_cannot_store(queue: Queue) -> None:
    queue.send(1)
    consumer = consume(queue)
    message = claim(consumer)
    message.stuff_exception(ValueError("\0 \ud800"))
    consumer.nack(message)
    assert str(queue.dead().error).endswith(r"ValueError: \x00 \ud800" + "\n")


def test_a_retry_waits_in_the_row_of_its_message(queue: Queue) -> None:
    queue.send(1)
    (row,) = queue.rows()
    consumer = consume(queue)
    message: Any = claim(consumer)
    message.options["retries"] = 1
    queue.broker.enqueue(message, delay=500_000)  # As Dramatiq's Retries does.
    consumer.ack(message)
    (again,) = queue.rows()
    assert (again.id, again.owner, again.returns) == (row.id, None, 0)
    assert take(consumer, 1) == []
    queue.move_clock(500)
    assert claim(consumer).options == {"retries": 1}


def test_messages_that_have_run_are_deleted_together(open_queue: OpenQueue) -> None:
    queue = open_queue(threads=40)
    queue.send(*range(40))
    consumer = consume(queue)
    messages = [claim(consumer) for _ in range(40)]
    written: list[str] = []
    event.listen(queue.broker.direct, "before_cursor_execute", lambda *given: written.append(given[2]))
    for message in messages:
        consumer.ack(message)
    next(consumer)
    assert queue.rows() == []
    assert sum(statement.startswith("DELETE") for statement in written) == 1


def test_a_database_that_is_away_for_a_moment_loses_no_acknowledgement(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue.send(1)
    consumer = consume(queue)
    consumer.ack(claim(consumer))

    def fail(*_: object) -> list[Any]:
        raise BrokerConnectionError("the database is away")

    with monkeypatch.context() as down:
        down.setattr(queue.broker, "rows", fail)
        with pytest.raises(BrokerConnectionError):
            next(consumer)
    next(consume(queue))
    assert queue.rows() == []
    assert not caplog.records


def test_an_idle_consumer_takes_no_lock(queue: Queue) -> None:
    queue.send(1, delay=500_000)
    consumer = consume(queue)
    written: list[str] = []
    event.listen(queue.broker.direct, "before_cursor_execute", lambda *given: written.append(given[2]))
    take(consumer, 5)
    assert len(written) >= 5
    assert all(statement.startswith("SELECT") for statement in written)
