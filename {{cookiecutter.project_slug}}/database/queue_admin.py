"""What people see of the queues' messages, and do to them, on every broker."""

import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dramatiq
from dramatiq.common import q_name
from dramatiq.errors import DecodeError
from sqlalchemy import ColumnElement, Delete, Row, Select, and_, bindparam, case, delete, func, or_, select, update

from database.base import database_time
from database.broker import TableBroker
from database.messages import DEAD, LATER, NOTIFY, READY, SUSPECT, QueueMessage
from database.outbox import OutboxBroker

# So many rows are changed in one transaction, that nobody's writes wait long.
AT_ONCE = 1000
# What earlier attempts leave in a message's options.
TRACES = ("retries", "traceback", "requeue_timestamp")

_due = QueueMessage.due <= database_time()
_later = and_(QueueMessage.state == LATER, QueueMessage.due > database_time())
_claimed = and_(_later, QueueMessage.owner.is_not(None))
# The states that people see, in the order in which they are listed, each as conditions that an index serves. A claim
# that has run out counts for nothing, as its worker is gone.
IN_TABLE: dict[str, tuple[ColumnElement[bool], ...]] = {
    "running": (_claimed,),
    "failed": (QueueMessage.state == DEAD,),
    "waiting": (QueueMessage.state == READY, QueueMessage.state == SUSPECT, and_(QueueMessage.state == LATER, _due)),
    "delayed": (and_(_later, QueueMessage.owner.is_(None)),),
}
# Messages are claimed there to be passed on, and run elsewhere.
IN_OUTBOX = {**IN_TABLE, "running": (), "waiting": (*IN_TABLE["waiting"], _claimed)}
STATES = tuple(IN_TABLE)

_again = (
    update(QueueMessage)
    .where(QueueMessage.id == bindparam("row"))
    .values(state=READY, due=database_time(), owner=None, deliveries=0, error=None, payload=bindparam("renewed"))
)


class QueuedMessage(NamedTuple):
    """A message as people see it.

    `when` is since when it waits (on a server: when it was sent or last tried), when it is due or has failed, or until
    when its worker has a claim on it, which a living one renews. `row` is its number in the table, None on a server.
    """

    id: str
    queue: str
    job: str
    state: str
    when: datetime
    attempts: int
    worker: str | None
    sent: datetime | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    error: str | None
    row: int | None

    @property
    def order(self) -> tuple[int, float]:
        """By state and time; of those that failed, the last comes first."""
        time = self.when.timestamp()
        return STATES.index(self.state), -time if self.state == "failed" else time

    @property
    def last_line(self) -> str:
        """What went wrong, in short."""
        return (self.error or "").strip().rpartition("\n")[2]


class QueueStatus(NamedTuple):
    """How many of a queue's messages are in each state, and since when the first one waits. None: not known."""

    queue: str
    waiting: int
    delayed: int
    running: int | None
    failed: int
    oldest: datetime | None


def unseen(broker: TableBroker) -> str:
    """What the broker's server does not show of its messages, in a line for people."""
    return broker.unseen if isinstance(broker, OutboxBroker) else ""


def queue_names(broker: TableBroker) -> list[str]:
    """The queues that the service declares, and those that have messages in the table."""
    found = _read(broker, select(QueueMessage.queue).distinct())
    return sorted({*broker.get_declared_queues(), *(row.queue for row in found)})


def status(broker: TableBroker, queue: str) -> QueueStatus:
    """Count a queue's messages."""
    counts: dict[str, Any] = {}
    for state, conditions in _conditions(broker).items():
        count = select(func.count().label("count")).where(QueueMessage.queue == queue)
        counts[state] = sum(_read(broker, count.where(condition))[0].count for condition in conditions)
    if isinstance(broker, OutboxBroker):
        waiting, counts["running"] = broker.count(queue)
        counts["waiting"] += waiting
    first = find_all(broker, [queue], ["waiting"], limit=1)
    return QueueStatus(queue, **counts, oldest=first[0].when if first else None)


def find_all(
    broker: TableBroker, queues: Collection[str], states: Collection[str], *, limit: int
) -> list[QueuedMessage]:
    """Messages of some queues in some states, at most so many."""
    found = [message for message in _on_server(broker, queues, limit) if message.state in states]
    for queue in queues:
        for state in states:
            order = QueueMessage.due.desc() if state == "failed" else QueueMessage.due
            for condition in _conditions(broker)[state]:
                statement = _messages(broker).where(QueueMessage.queue == queue, condition).order_by(order)
                found += [_stored(broker, row) for row in _read(broker, statement.limit(limit))]
    return sorted(found, key=lambda message: message.order)[:limit]


def find(broker: TableBroker, prefix: str) -> list[QueuedMessage]:
    """The message whose id begins so. It is in two places while a worker on a server has it and it shall run again.

    Raises:
        LookupError: there is none, or there are several.
    """
    statement = _messages(broker).where(QueueMessage.message_id.startswith(prefix, autoescape=True))
    found = [_stored(broker, row) for row in _read(broker, statement.limit(AT_ONCE))]
    found += _on_server(broker, queue_names(broker), containing=prefix)
    found = sorted((message for message in found if message.id.startswith(prefix)), key=lambda message: message.order)
    count = len({message.id for message in found})
    if count != 1:
        raise LookupError(f"{prefix}: {count} messages begin so" if count else f"{prefix}: there is no such message")
    return found


def failed_rows(broker: TableBroker, queues: Collection[str]) -> list[int]:
    """The numbers of all failed messages of some queues."""
    wanted = QueueMessage.queue.in_(queues), *IN_TABLE["failed"]
    return [row.id for row in _read(broker, select(QueueMessage.id).where(*wanted))]


def retry(broker: TableBroker, rows: Sequence[int]) -> int:
    """Let failed messages wait again, as if they had been sent now; returns how many."""
    count = 0
    for start in range(0, len(rows), AT_ONCE):
        wanted = select(QueueMessage.id, QueueMessage.payload).where(
            QueueMessage.id.in_(rows[start : start + AT_ONCE]), *IN_TABLE["failed"]
        )
        with broker.table.engine.begin() as connection:
            found = connection.execute(wanted.with_for_update()).all()
            if found:
                connection.execute(_again, [{"row": row.id, "renewed": _renewed(row.payload)} for row in found])
            if broker.table.notifies:
                connection.execute(NOTIFY)
        count += len(found)
    return count


def cancel(broker: TableBroker, message: QueuedMessage) -> bool:
    """Remove a message that waits or is delayed, unless a worker takes it at the same moment."""
    if isinstance(broker, OutboxBroker) and message.row is None:
        return broker.remove(message.queue, [message.options["redis_message_id"]]) > 0
    unclaimed = or_(*IN_TABLE["waiting"], *IN_TABLE["delayed"])
    return _change(broker, delete(QueueMessage).where(QueueMessage.id == message.row, unclaimed)) > 0


def purge(broker: TableBroker, queue: str, states: Collection[str]) -> int:
    """Drop a queue's messages that wait, are delayed or have failed, as `states` says; returns how many."""
    count = 0
    for condition in (condition for state in states for condition in IN_TABLE[state]):
        some = select(QueueMessage.id).where(QueueMessage.queue == queue, condition).limit(AT_ONCE)
        # The condition once more, because one of them may be claimed after they were chosen.
        statement = delete(QueueMessage).where(QueueMessage.id.in_(some), condition)
        while dropped := _change(broker, statement):
            count += dropped
    if isinstance(broker, OutboxBroker) and "waiting" in states:
        count += broker.purge(queue)
    return count


def _conditions(broker: TableBroker) -> dict[str, tuple[ColumnElement[bool], ...]]:
    return IN_OUTBOX if isinstance(broker, OutboxBroker) else IN_TABLE


def _read(broker: TableBroker, statement: Select[Any]) -> Sequence[Row[Any]]:
    with broker.table.engine.connect().execution_options(read_only=True) as connection:
        return connection.execute(statement).all()


def _change(broker: TableBroker, statement: Delete) -> int:
    with broker.table.engine.begin() as connection:
        return connection.execute(statement).rowcount


def _messages(broker: TableBroker) -> Select[Any]:
    states = [(or_(*conditions), state) for state, conditions in _conditions(broker).items() if conditions]
    return select(QueueMessage.__table__, case(*states).label("shown"))


def _stored(broker: TableBroker, row: Row[Any]) -> QueuedMessage:
    try:
        message: dramatiq.Message[Any] = dramatiq.Message.decode(row.payload)
    except DecodeError:
        message = dramatiq.Message(row.queue, row.actor, (), {}, {}, row.message_id, 0)
    if isinstance(broker, OutboxBroker):  # Its deliveries are no attempts.
        tried = int(row.shown == "failed" and "retries" not in message.options)
    else:
        tried = row.deliveries
    worker = row.owner if row.shown == "running" else None
    return _shown(message, row.shown, row.due, tried, worker, row.error, row.id)


def _on_server(
    broker: TableBroker, queues: Collection[str], limit: int | None = None, containing: str = ""
) -> Iterator[QueuedMessage]:
    if not isinstance(broker, OutboxBroker):
        return
    for payload, worker, until in (found for queue in queues for found in broker.look(queue, limit)):
        if containing.encode() in payload:
            try:
                message: dramatiq.Message[Any] = dramatiq.Message.decode(payload)
            except DecodeError:
                continue  # The workers' log tells of it.
            tried = message.options.get("requeue_timestamp", message.message_timestamp) / 1000
            yield _shown(message, "running" if worker else "waiting", until or tried, int(bool(worker)), worker)


def _shown(
    message: dramatiq.Message[Any],
    state: str,
    when: float,
    tried: int,
    worker: str | None,
    error: str | None = None,
    row: int | None = None,
) -> QueuedMessage:
    sent = message.message_timestamp / 1000
    return QueuedMessage(
        id=message.message_id,
        queue=q_name(message.queue_name),
        job=message.actor_name,
        state=state,
        when=datetime.fromtimestamp(when, UTC),
        attempts=message.options.get("retries", 0) + tried,
        worker=worker,
        sent=datetime.fromtimestamp(sent, UTC) if sent else None,
        args=message.args,
        kwargs=message.kwargs,
        options={name: value for name, value in message.options.items() if name not in TRACES},
        error=error or message.options.get("traceback"),
        row=row,
    )


def _renewed(payload: bytes) -> bytes:
    try:
        message: dramatiq.Message[Any] = dramatiq.Message.decode(payload)
    except DecodeError:
        return payload  # A worker says again why it cannot be read.
    options = {name: value for name, value in message.options.items() if name not in TRACES}
    # A maximal age counts from now as well.
    return bytes(dataclasses.replace(message, options=options, message_timestamp=round(time.time() * 1000)).encode())
