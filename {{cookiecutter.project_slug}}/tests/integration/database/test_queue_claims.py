"""What consumers of the queue's table promise: claims, leases, and what happens to a worker's messages when it dies.

No worker runs here; a test takes messages as a worker would. Most tests set the clock that the broker reads.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError, QueueJoinTimeout
from sqlalchemy import Engine, event, select, update
from sqlalchemy.exc import OperationalError

from database import broker as broker_module
from database import connect, sessions
from database.broker import DatabaseBroker, DatabaseConsumer, QueueMessage

LEASE = 30.0


class Clock:
    """The time as the broker sees it, which only a test moves."""

    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(broker_module, "time", Mock(wraps=time, time=clock.time))
    return clock


@pytest.fixture
def broker(engine: Engine) -> DatabaseBroker:
    return DatabaseBroker(engine, lease=LEASE, max_deliveries=3, poll_interval=0.01)


@pytest.fixture
def consume(broker: DatabaseBroker) -> Iterator[Callable[..., DatabaseConsumer]]:
    """Opens consumers, each as a worker of its own would."""
    before, consumers = set(threading.enumerate()), []

    def open_consumer(prefetch: int = 1, queue: str = "default", broker: DatabaseBroker = broker) -> DatabaseConsumer:
        consumers.append(broker.consume(queue, prefetch, timeout=1))
        return consumers[-1]

    yield open_consumer
    for consumer in consumers:
        consumer.close()
    for heartbeat in set(threading.enumerate()) - before:
        heartbeat.join()


def send(broker: DatabaseBroker, *numbers: int, queue: str = "default", delay: int | None = None) -> None:
    for number in numbers:
        message = dramatiq.Message[None](queue_name=queue, actor_name="job", args=(number,), kwargs={}, options={})
        broker.enqueue(message, delay=delay)


def numbers(messages: Iterable[dramatiq.MessageProxy | None]) -> list[int]:
    return [message.args[0] for message in messages if message]


def take(consumer: DatabaseConsumer, times: int) -> list[int]:
    """The numbers of the messages that are handed out in so many looks."""
    return numbers(next(consumer) for _ in range(times))


def claim(consumer: DatabaseConsumer) -> dramatiq.MessageProxy:
    """The next message, which has to be there."""
    message = next(consumer)
    assert message
    return message


def rows(broker: DatabaseBroker) -> list[QueueMessage]:
    with sessions(broker.engine, read_only=True)() as session:
        return list(session.scalars(select(QueueMessage).order_by(QueueMessage.id)))


@pytest.mark.parametrize(("commit", "expected"), [(True, 1), (False, 0)])
def test_a_message_exists_if_and_only_if_its_transaction_commits(engine: Engine, commit: bool, expected: int) -> None:
    with sessions(engine)() as session:
        broker = DatabaseBroker(engine, lambda: session)
        send(broker, 1)
        assert broker.count("default") == 0
        session.commit() if commit else session.rollback()
    assert broker.count("default") == expected


def test_messages_are_handed_out_in_the_order_they_were_sent(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    send(broker, 1, 2, 3)
    consumer = consume()
    for expected in (1, 2, 3):
        message = claim(consumer)
        assert numbers([message]) == [expected]
        consumer.ack(message)
    assert next(consumer) is None
    assert rows(broker) == []


def test_a_queue_has_only_its_own_messages(broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]) -> None:
    send(broker, 1)
    send(broker, 2, queue="mail")
    assert take(consume(prefetch=5, queue="mail"), 2) == [2]
    assert (broker.count("default"), broker.count("mail"), broker.count("none")) == (1, 1, 0)


def test_a_delayed_message_waits_until_it_is_due(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer], clock: Clock
) -> None:
    send(broker, 1, delay=5000)
    send(broker, 2, delay=2000)
    consumer = consume(prefetch=2)
    assert take(consumer, 1) == []
    clock.now += 2
    assert take(consumer, 2) == [2]
    clock.now += 3
    assert take(consumer, 1) == [1]


def test_a_consumer_holds_no_more_than_it_may(broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]) -> None:
    send(broker, 1, 2, 3)
    consumer = consume(prefetch=2)
    first = claim(consumer)
    assert take(consumer, 3) == [2]
    assert take(consume(prefetch=2), 2) == [3]
    consumer.ack(first)
    send(broker, 4)
    assert take(consumer, 2) == [4]


def test_two_consumers_never_get_the_same_message(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    send(broker, *range(60))
    consumers = [consume(prefetch=7) for _ in range(3)]

    def drain(consumer: DatabaseConsumer) -> list[int]:
        found = []
        while (message := next(consumer)) is not None:
            found += numbers([message])
            consumer.ack(message)
        return found

    with ThreadPoolExecutor(3) as pool:
        found = [number for numbers in pool.map(drain, consumers) for number in numbers]
    assert sorted(found) == list(range(60))


def test_messages_of_a_dead_worker_are_due_again_when_its_lease_ends_and_not_before(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer], clock: Clock
) -> None:
    send(broker, 1)
    dead, other = consume(), consume()
    assert take(dead, 1) == [1]
    clock.now += LEASE - 0.1
    assert take(other, 1) == []
    clock.now += 0.2
    assert take(other, 1) == [1]


def test_a_living_worker_keeps_its_messages_beyond_the_lease(
    engine: Engine, consume: Callable[..., DatabaseConsumer]
) -> None:
    broker = DatabaseBroker(engine, lease=0.3)
    send(broker, 1)
    living = consume(broker=broker)
    message = claim(living)
    first_end = rows(broker)[0].due
    wait_until(lambda: rows(broker)[0].due > first_end)
    assert take(consume(broker=broker), 1) == []
    living.ack(message)
    assert rows(broker) == []


def test_a_heartbeat_that_fails_is_tried_again(
    engine: Engine, consume: Callable[..., DatabaseConsumer], caplog: pytest.LogCaptureFixture
) -> None:
    down = threading.Event()

    @event.listens_for(engine, "begin")
    def fail_while_down(_: object) -> None:
        if down.is_set() and threading.current_thread().name == "lease-default":
            raise OperationalError("BEGIN", None, Exception("the server is restarting"))

    broker = DatabaseBroker(engine, lease=0.15)
    send(broker, 1)
    down.set()
    claim(consume(broker=broker))
    first_end = rows(broker)[0].due
    wait_until(lambda: "Leases of queue default were not renewed; trying again." in caplog.text)
    assert rows(broker)[0].due == first_end
    down.clear()
    wait_until(lambda: rows(broker)[0].due > first_end)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_message_that_takes_its_workers_down_is_set_aside(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer], clock: Clock
) -> None:
    send(broker, 1)
    for _ in range(3):
        assert take(consume(), 1) == [1]
        clock.now += LEASE + 1
    assert take(consume(), 1) == []
    (row,) = rows(broker)
    assert (row.state, row.owner, row.error) == (DEAD, None, "handed out 3 times, and its worker died each time")
    assert (broker.count("default"), broker.count("default", DEAD)) == (0, 1)


def test_a_message_that_takes_its_workers_down_takes_no_other_message_with_it(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer], clock: Clock
) -> None:
    deadly = 3
    send(broker, *range(6))
    for _ in range(5):
        consumer = consume(prefetch=16)
        while held := [message for message in (next(consumer) for _ in range(16)) if message]:
            if deadly in numbers(held):
                clock.now += LEASE + 1
                break
            for message in held:
                consumer.ack(message)
    (left,) = rows(broker)
    assert (left.state, dramatiq.Message[None].decode(left.payload).args) == (DEAD, (deadly,))


def test_a_message_that_cannot_be_read_is_set_aside_and_its_neighbours_run(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    send(broker, 1, 2, 3)
    with sessions(broker.engine).begin() as session:
        session.execute(update(QueueMessage).where(QueueMessage.id == rows(broker)[1].id).values(payload=b"{"))
    assert sorted(take(consume(prefetch=5), 3)) == [1, 3]
    (broken,) = (row for row in rows(broker) if row.state == DEAD)
    assert broken.error


def test_messages_that_are_given_back_are_due_at_once_and_do_not_wear_out(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    send(broker, 1, 2)
    for _ in range(5):
        consumer = consume(prefetch=2)
        messages = [claim(consumer), claim(consumer)]
        assert sorted(numbers(messages)) == [1, 2]
        consumer.requeue(messages)
    assert [(row.owner, row.deliveries) for row in rows(broker)] == [(None, 0), (None, 0)]


def test_a_consumer_that_closes_gives_back_what_it_has_not_handed_out(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    send(broker, 1, 2, 3)
    consumer = consume(prefetch=5)
    (started,) = take(consumer, 1)
    consumer.close()
    assert sorted([started, *take(consume(prefetch=5), 3)]) == [1, 2, 3]


@pytest.mark.parametrize("finish", [DatabaseConsumer.ack, DatabaseConsumer.nack])
def test_who_comes_after_the_lease_cannot_finish_what_another_has_taken(
    broker: DatabaseBroker,
    consume: Callable[..., DatabaseConsumer],
    clock: Clock,
    finish: Callable[[DatabaseConsumer, dramatiq.MessageProxy], None],
) -> None:
    send(broker, 1)
    slow, fast = consume(), consume()
    late = claim(slow)
    clock.now += LEASE + 1
    assert take(fast, 1) == [1]
    finish(slow, late)
    assert (broker.count("default"), broker.count("default", DEAD)) == (1, 0)


def test_a_retry_waits_in_the_row_of_its_message(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer], clock: Clock
) -> None:
    send(broker, 1)
    (row,) = rows(broker)
    consumer = consume()
    message = claim(consumer)
    message.options["retries"] = 1
    broker.enqueue(message, delay=5000)  # type: ignore[arg-type]  # As Dramatiq's Retries does.
    assert len(rows(broker)) == 1
    consumer.ack(message)
    (again,) = rows(broker)
    assert (again.id, again.due, again.owner, again.deliveries) == (row.id, clock.now + 5, None, 0)
    clock.now += 5
    assert claim(consumer).options == {"retries": 1}


def test_a_database_that_fails_is_an_error_on_which_workers_try_again(
    engine: Engine, consume: Callable[..., DatabaseConsumer]
) -> None:
    hasty = connect(str(engine.url), timeout=0.001)
    broker = DatabaseBroker(hasty, lease=LEASE)
    send(broker, 1, 2)
    consumer = consume(broker=broker)
    message = claim(consumer)
    with sessions(engine).begin() as writer:
        writer.connection()
        for step in (consumer.ack, consumer.nack, lambda message: consumer.requeue([message])):
            with pytest.raises(BrokerConnectionError):
                step(message)
        with pytest.raises(BrokerConnectionError):
            next(consume(broker=broker))
    consumer.ack(message)
    assert broker.count("default") == 1
    hasty.dispose()


def test_a_message_can_be_finished_by_the_consumer_that_follows_a_broken_one(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    send(broker, 1)
    broken = consume()
    message = claim(broken)
    broken.close()
    consume().ack(message)
    assert rows(broker) == []


def test_join_waits_for_what_waits_or_runs_and_gives_up_in_time(
    broker: DatabaseBroker, consume: Callable[..., DatabaseConsumer]
) -> None:
    broker.join("default", timeout=0)
    send(broker, 1)
    consumer = consume()
    message = claim(consumer)
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=1)
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(broker.join, "default")
        consumer.ack(message)
        joining.result(10)


def test_flush_empties_one_queue_or_all_that_are_declared(broker: DatabaseBroker) -> None:
    for queue in ("default", "mail", "reports"):
        broker.declare_queue(queue)
        broker.declare_queue(queue)
        send(broker, 1, 2, queue=queue)
    assert broker.get_declared_queues() == {"default", "mail", "reports"}
    broker.flush("mail")
    assert [row.queue for row in rows(broker)] == ["default"] * 2 + ["reports"] * 2
    broker.flush_all()
    assert rows(broker) == []
