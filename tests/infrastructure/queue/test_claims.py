"""What consumers of the table promise: claims, leases, and what happens to a worker's messages when it dies.

No worker runs here; a test takes messages as a worker would, and moves the times in the table instead of waiting.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError
from sqlalchemy import event, update

from database import sessions
from database.broker import DatabaseConsumer
from database.messages import DEAD, LATER, READY, SUSPECT, ClaimedMessage, MessageTable, QueueMessage
from tests.infrastructure.queue.conftest import OpenQueue, Queue
from tests.infrastructure.queue.workers import eventually

LEASE = 30.0
Consume = Callable[..., DatabaseConsumer]

pytestmark = pytest.mark.parametrize("backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])


@pytest.fixture
def consume(open_queue: OpenQueue) -> Iterator[Consume]:
    """Opens consumers, each in a process of its own as the table sees it, unless a queue is given."""
    consumers: list[DatabaseConsumer] = []

    def consume(prefetch: int = 1, *, name: str = "default", of: Queue | None = None) -> DatabaseConsumer:
        consumer = (of or open_queue()).broker.consume(name, prefetch, timeout=1)
        assert isinstance(consumer, DatabaseConsumer)
        consumers.append(consumer)
        return consumer

    yield consume
    for consumer in consumers:
        consumer.close()


def send(queue: Queue, *numbers: int, name: str = "default", delay: int | None = None) -> None:
    for number in numbers:
        message = dramatiq.Message[None](queue_name=name, actor_name="job", args=(number,), kwargs={}, options={})
        queue.broker.enqueue(message, delay=delay)


def numbers(messages: Iterable[dramatiq.MessageProxy | None]) -> list[int]:
    return [message.args[0] for message in messages if message]


def take(consumer: DatabaseConsumer, times: int) -> list[int]:
    """The numbers of the messages that are handed out in so many looks."""
    return numbers(next(consumer) for _ in range(times))


def claim(consumer: DatabaseConsumer) -> ClaimedMessage:
    """The next message, which has to be there."""
    message = next(consumer)
    assert isinstance(message, ClaimedMessage)
    return message


def states(queue: Queue) -> list[int]:
    return [row.state for row in queue.rows()]


def test_messages_are_handed_out_in_the_order_they_were_sent(queue: Queue, consume: Consume) -> None:
    send(queue, 1, 2, 3)
    consumer = consume()
    for expected in (1, 2, 3):
        message = claim(consumer)
        assert numbers([message]) == [expected]
        consumer.ack(message)
    assert next(consumer) is None
    assert queue.rows() == []


def test_a_delayed_message_waits_until_it_is_due(queue: Queue, consume: Consume) -> None:
    send(queue, 1, delay=500_000)
    send(queue, 2, delay=200_000)
    consumer = consume(prefetch=2)
    assert take(consumer, 1) == []
    queue.move_clock(250)
    second = claim(consumer)
    assert numbers([second]) == [2]
    consumer.ack(second)
    queue.move_clock(250.1)
    assert take(consumer, 2) == [1]


def test_a_consumer_holds_no_more_than_it_may(queue: Queue, consume: Consume) -> None:
    send(queue, 1, 2, 3)
    consumer = consume(prefetch=2)
    first = claim(consumer)
    assert take(consumer, 3) == [2]
    assert take(consume(prefetch=2), 2) == [3]
    consumer.ack(first)
    send(queue, 4)
    assert take(consumer, 2) == [4]


def test_consumers_never_get_the_same_message(queue: Queue, consume: Consume) -> None:
    send(queue, *range(60))
    consumers = [consume(prefetch=7) for _ in range(3)]

    def drain(consumer: DatabaseConsumer) -> list[int]:
        found = []
        while queue.rows():
            if isinstance(message := next(consumer), ClaimedMessage):
                found += numbers([message])
                consumer.ack(message)
        return found

    with ThreadPoolExecutor(3) as pool:
        found = [number for numbers in pool.map(drain, consumers) for number in numbers]
    assert sorted(found) == list(range(60))


def test_messages_of_a_dead_worker_are_due_again_when_its_lease_ends_and_not_before(
    queue: Queue, consume: Consume
) -> None:
    send(queue, 1)
    dead, other = consume(), consume()
    assert take(dead, 1) == [1]
    queue.move_clock(LEASE - 5)
    assert take(other, 1) == []
    queue.move_clock(5)
    assert take(other, 1) == [1]


def test_a_process_renews_what_it_holds_also_when_it_comes_late(
    queue: Queue, consume: Consume, open_queue: OpenQueue
) -> None:
    living = open_queue()
    send(queue, 1)
    message = claim(consumer := consume(of=living))
    for seconds in (LEASE / 2, LEASE * 2):
        queue.move_clock(seconds)
        before = queue.rows()[0].due
        living.table.renew()
        assert queue.rows()[0].due > before
    # Ended, and noticed by others, but not taken.
    queue.move_clock(LEASE + 1)
    with queue.engine.begin() as connection:
        connection.execute(update(QueueMessage).values(state=SUSPECT, owner=None))
    living.table.renew()
    assert take(consume(), 1) == []
    consumer.ack(message)
    assert queue.rows() == []


def test_a_living_worker_keeps_its_messages_beyond_the_lease(open_queue: OpenQueue, consume: Consume) -> None:
    living = open_queue(lease=0.3)
    send(living, 1)
    consumer = consume(of=living)
    message = claim(consumer)
    first_end = living.rows()[0].due
    eventually(lambda: living.rows()[0].due > first_end)
    consumer.ack(message)
    assert living.rows() == []


@pytest.mark.parametrize("finish", [DatabaseConsumer.ack, DatabaseConsumer.nack])
def test_who_comes_after_the_lease_cannot_finish_what_another_has_taken(
    queue: Queue,
    consume: Consume,
    caplog: pytest.LogCaptureFixture,
    finish: Callable[[DatabaseConsumer, ClaimedMessage], None],
) -> None:
    send(queue, 1)
    slow, fast = consume(), consume()
    late = claim(slow)
    queue.move_clock(LEASE + 1)
    assert take(fast, 1) == [1]
    finish(slow, late)
    assert states(queue) == [LATER]
    assert "1 jobs have run whose leases had ended; they may run again." in caplog.text


def test_of_messages_that_came_back_a_process_holds_one(queue: Queue, consume: Consume, open_queue: OpenQueue) -> None:
    send(queue, 1, 2, 3)
    assert len(take(consume(prefetch=6), 3)) == 3
    queue.move_clock(LEASE + 1)
    send(queue, 4)
    process = open_queue()
    consumer = consume(prefetch=6, of=process)
    first = claim(consumer)
    assert numbers([first]) == [1]
    assert take(consumer, 3) == [4]
    # Not with another consumer of the same process either, but in another process.
    assert take(consume(prefetch=6, of=process), 1) == []
    assert take(consume(prefetch=6), 2) == [2]
    consumer.ack(first)
    process.table.look_after.clear()
    assert take(consumer, 2) == [3]


def test_messages_that_are_given_back_are_due_at_once_and_do_not_wear_out(queue: Queue, consume: Consume) -> None:
    send(queue, 1, 2)
    for _ in range(5):
        consumer = consume(prefetch=2)
        messages = [claim(consumer), claim(consumer)]
        assert sorted(numbers(messages)) == [1, 2]
        consumer.requeue(messages)
    assert [(row.state, row.owner, row.deliveries) for row in queue.rows()] == [(READY, None, 0)] * 2


def test_a_consumer_that_closes_gives_back_what_it_has_not_handed_out(queue: Queue, consume: Consume) -> None:
    send(queue, 1, 2, 3)
    consumer = consume(prefetch=5)
    (started,) = take(consumer, 1)
    consumer.close()
    assert sorted([started, *take(consume(prefetch=5), 3)]) == [1, 2, 3]


def test_a_process_that_ends_gives_back_what_still_runs(queue: Queue, consume: Consume, open_queue: OpenQueue) -> None:
    send(queue, 1)
    process = open_queue()
    claim(consume(of=process))
    process.broker.close()
    assert take(consume(), 1) == [1]


def test_a_message_that_cannot_be_read_is_set_aside_and_its_neighbours_run(queue: Queue, consume: Consume) -> None:
    send(queue, 1, 2, 3)
    with sessions(queue.engine).begin() as session:
        session.execute(update(QueueMessage).where(QueueMessage.id == queue.rows()[1].id).values(payload=b"{"))
    assert sorted(take(consume(prefetch=5), 3)) == [1, 3]
    (broken,) = (row for row in queue.rows() if row.state == DEAD)
    assert broken.error


def test_a_retry_waits_in_the_row_of_its_message(queue: Queue, consume: Consume) -> None:
    send(queue, 1)
    (row,) = queue.rows()
    consumer = consume(of=queue)
    message = claim(consumer)
    message.options["retries"] = 1
    queue.broker.enqueue(message, delay=500_000)  # type: ignore[arg-type]  # As Dramatiq's Retries does.
    consumer.ack(message)
    (again,) = queue.rows()
    assert (again.id, again.state, again.owner, again.deliveries) == (row.id, LATER, None, 0)
    assert take(consumer, 1) == []
    queue.move_clock(500)
    assert claim(consumer).options == {"retries": 1}


def test_messages_become_ready_by_the_thousand_at_most(
    queue: Queue, consume: Consume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queue.engine.begin() as connection:
        row = {"queue": "default", "actor": "job", "message_id": "", "state": LATER, "priority": 0, "due": 0.0}
        payload = dramatiq.Message[None]("default", "job", (1,), {}, {}).encode()
        rows = [{**row, "deliveries": 0, "payload": payload}] * 1500
        connection.execute(QueueMessage.__table__.insert(), rows)  # type: ignore[attr-defined]
    consumer = consume(prefetch=2)
    claim(consumer)
    assert states(queue).count(READY) == 1000 - 2


def test_many_threads_finish_together(open_queue: OpenQueue, consume: Consume) -> None:
    queue = open_queue()
    send(queue, *range(40))
    consumer = consume(prefetch=40, of=queue)
    messages = [claim(consumer) for _ in range(40)]
    commits = []
    event.listen(queue.table.direct, "after_cursor_execute", lambda *given: commits.append(given[2][:6]))
    with queue.table.writing, ThreadPoolExecutor(40) as pool:
        for message in messages:
            pool.submit(consumer.ack, message)
        eventually(lambda: len(queue.table.finished) == 40)
        queue.table.writing.release()
        pool.shutdown()
        queue.table.writing.acquire()
    assert queue.rows() == []
    assert commits.count("DELETE") == 1


def test_a_commit_that_fails_loses_no_acknowledgement(
    open_queue: OpenQueue, consume: Consume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue()
    send(queue, 1, 2, 3)
    consumer = consume(prefetch=3, of=queue)
    messages = [claim(consumer) for _ in range(3)]
    with monkeypatch.context() as down:
        down.setattr(queue.table, "_count", fail)
        for message in messages[:2]:
            with pytest.raises(BrokerConnectionError):
                consumer.ack(message)
        # They are still held: nobody else may take them meanwhile.
        assert len(queue.table.held) == 3
    consumer.ack(messages[0])
    assert len(queue.rows()) == 1
    consumer.ack(messages[1])
    consumer.ack(messages[2])
    assert queue.rows() == []
    assert not caplog.records


def fail(*_: object, **__: object) -> int:
    raise BrokerConnectionError("the database is away")


def test_a_consumer_that_waits_hears_of_a_new_message(queue: Queue, open_queue: OpenQueue) -> None:
    listening = threading.Event()

    def wait() -> float:
        consumer = open_queue().broker.consume("default", 1, timeout=60_000)
        with closing(consumer):
            listening.set()
            while not next(consumer):
                pass
            return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(wait)
        assert listening.wait(20)
        send(queue, 1)
        # One that only looked when its time is over would take a minute.
        found.result(20)


def test_an_idle_consumer_takes_no_lock(queue: Queue, consume: Consume) -> None:
    send(queue, 1, delay=500_000)
    consumer = consume(of=queue)
    written = []
    event.listen(queue.table.direct, "before_cursor_execute", lambda *given: written.append(given[2]))
    take(consumer, 5)
    assert written
    assert all(statement.startswith("SELECT") for statement in written)


def test_two_queues_are_apart(queue: Queue, consume: Consume) -> None:
    send(queue, 1)
    send(queue, 2, name="mail")
    assert take(consume(prefetch=5, name="mail"), 2) == [2]
    assert [queue.table.count(name) for name in ("default", "mail", "none")] == [1, 1, 0]


def test_a_table_is_this_process_for_others_to_find(queue: Queue) -> None:
    assert MessageTable(queue.engine).owner != queue.table.owner


def test_a_process_does_not_claim_again_what_it_runs(queue: Queue, consume: Consume) -> None:
    send(queue, 1)
    consumer = consume(prefetch=2, of=queue)
    running = claim(consumer)
    queue.move_clock(LEASE + 1)
    assert next(consumer) is None
    consumer.ack(running)
    assert queue.rows() == []


def test_a_claim_that_fails_half_way_keeps_nothing(
    queue: Queue, consume: Consume, open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(queue, 1)
    claim(consume())
    send(queue, 2)
    queue.move_clock(LEASE + 1)
    table = queue.broker.table
    found = table._claim

    def fail_second(state: int, *arguments: object) -> list[ClaimedMessage]:
        if state == READY:
            raise BrokerConnectionError("the server is restarting")
        return found(state, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(table, "_claim", fail_second)
    messages, _ = table.claim("default", 2)
    assert {message.row_id for message in messages} == table.held
    assert numbers(messages) == [1]
