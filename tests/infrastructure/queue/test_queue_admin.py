"""What people see of the messages, and do to them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from database import queue_admin
from database.broker import QueueMessage
from tests.infrastructure.queue.conftest import OpenQueue, Queue
from tests.infrastructure.queue.test_claims import claim, consume
from tests.infrastructure.queue.workers import wait_until_empty

STATES = list(queue_admin.STATES)


@pytest.fixture
def queue(open_queue: OpenQueue) -> Queue:
    """A queue with a message in each state: 1 failed, 2 runs, 3 is delayed, 4 waits."""
    queue = open_queue(threads=2)
    queue.send(1, 2)
    consumer = consume(queue)
    message, _running = claim(consumer), claim(consumer)
    message.stuff_exception(ValueError("broken"))
    consumer.nack(message)
    queue.send(3, delay=500_000)
    queue.send(4)
    return queue


@pytest.fixture
def session(queue: Queue) -> Iterator[Session]:
    with Session(queue.engine) as session:
        yield session
        session.commit()


def found(session: Session) -> dict[int, str]:
    """The state of each message, by its number."""
    rows = queue_admin.listed(session, None, 10)
    return {dramatiq.Message.decode(row.payload).args[0]: state for row, state in rows}


def ids(session: Session) -> list[str]:
    return [row.message_id for row, _ in queue_admin.listed(session, None, 10)]


def test_every_message_is_in_one_state(session: Session) -> None:
    assert found(session) == {1: "failed", 2: "running", 3: "delayed", 4: "waiting"}
    assert [tuple(row) for row in queue_admin.counts(session)] == [("default", state, 1) for state in sorted(STATES)]
    for state in STATES:
        ((row, same),) = queue_admin.listed(session, state, 10)
        assert (same, "broken" in str(row.error)) == (state, state == "failed")
    assert len(queue_admin.listed(session, None, 3)) == 3


def test_a_message_of_a_dead_worker_waits_when_its_lease_has_ended(queue: Queue, session: Session) -> None:
    queue.move_clock(40)
    assert found(session)[2] == "waiting"


def test_a_failed_message_waits_again_as_if_it_was_sent_now(queue: Queue, session: Session) -> None:
    tries: list[Any] = []

    def fail_twice(*args: object, **kwargs: object) -> None:
        tries.append((args, kwargs))
        if len(tries) <= 2:
            raise ValueError

    queue_admin.purge(session, "waiting")
    session.commit()
    options = {"max_retries": 1, "min_backoff": 1, "max_backoff": 1, "max_age": 60_000}
    queue.actor(fail_twice, "fragile", queue_name="other", **options).send(5, key="ä")
    queue.work(queues={"other"})
    wait_until_empty(queue.broker, "other")
    session.rollback()
    old = update(QueueMessage).where(QueueMessage.dead).values(message_id="abc_%")
    session.execute(old.where(QueueMessage.queue == "other"))
    assert queue_admin.retry(session, ["abc", "none"]) == 1
    session.commit()
    wait_until_empty(queue.broker, "other")
    assert tries == [((5,), {"key": "ä"})] * 3
    assert [row.queue for row in queue.rows() if row.dead] == ["default"]


def test_all_failed_messages_wait_again_but_for_those_that_cannot_be_read(queue: Queue, session: Session) -> None:
    session.execute(update(QueueMessage).values(dead=True, owner=None))
    session.execute(update(QueueMessage).where(QueueMessage.id == queue.rows()[0].id).values(payload=b"{"))
    assert queue_admin.retry(session, []) == 3
    assert {row[1]: row[2] for row in queue_admin.counts(session)} == {"failed": 1, "waiting": 3}
    assert queue_admin.purge(session, "failed") == 1


def test_messages_are_cancelled_by_the_beginning_of_their_ids_unless_they_run(session: Session) -> None:
    assert queue_admin.cancel(session, ["_", "%", "none"]) == 0
    assert queue_admin.cancel(session, [id_[:13] for id_ in ids(session)]) == 3
    assert found(session) == {2: "running"}


@pytest.mark.parametrize("state", STATES)
def test_all_messages_in_a_state_are_dropped(session: Session, state: str) -> None:
    assert queue_admin.purge(session, state) == 1
    assert state not in found(session).values()
    assert len(found(session)) == 3


def test_only_messages_that_failed_long_ago_are_forgotten(session: Session) -> None:
    now = datetime.now(UTC)
    assert queue_admin.forget_old(session, now - timedelta(hours=1)) == 0
    assert queue_admin.forget_old(session, now + timedelta(hours=1)) == 1
    assert found(session) == {2: "running", 3: "delayed", 4: "waiting"}
