"""The table in which messages wait, run, or were set aside, and everything that is done to its rows.

A message is claimed for the time of a lease, which its worker renews for as long as it lives. A worker that is
killed stops renewing, so its messages are due again when the lease ends: a job runs at least once.
"""

import logging
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import dramatiq
from dramatiq.common import q_name
from dramatiq.errors import BrokerConnectionError, DecodeError
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Executable,
    Index,
    Integer,
    LargeBinary,
    Row,
    SmallInteger,
    String,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exc,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from database.base import Base, PrimaryKey, database_time
from database.engine import single_statements

# What a message is: to be claimed now; not before `due`, be it delayed or claimed; back from a worker that died with
# it; set aside.
READY, LATER, SUSPECT, DEAD = range(4)

# The channel on which PostgreSQL tells of new messages.
CHANNEL = "queue_message"
# While messages keep coming, a worker looks for others than ready ones so often, in seconds.
LOOK_INTERVAL = 0.2
# So many messages become ready in one step, however many are due at once.
READY_AT_ONCE = 1000

logger = logging.getLogger(__name__)


class QueueMessage(Base):
    """A message.

    `due` is in seconds since the epoch by the database's clock: since when it is ready, until when it is delayed or
    claimed, or when it was set aside. `owner` is the process that has claimed it. Lower `priority` goes first.
    """

    __tablename__ = "queue_message"
    __table_args__ = (
        Index("ix_queue_message_order", "queue", "state", "priority", "due", "id"),
        Index("ix_queue_message_due", "queue", "state", "due"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[PrimaryKey]
    queue: Mapped[str] = mapped_column(String(100))
    actor: Mapped[str] = mapped_column(String(200))
    message_id: Mapped[str] = mapped_column(String(36))
    state: Mapped[int] = mapped_column(SmallInteger)
    priority: Mapped[int]
    due: Mapped[float]
    owner: Mapped[str | None] = mapped_column(String(100))
    deliveries: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    error: Mapped[str | None] = mapped_column(Text)


class ClaimedMessage(dramatiq.MessageProxy):
    """A message with the number of its row, how often it was claimed, and in how many milliseconds to run it again."""

    def __init__(self, row_id: int, deliveries: int, payload: bytes) -> None:
        super().__init__(dramatiq.Message.decode(payload))
        self.row_id = row_id
        self.deliveries = deliveries
        self.again_after: int | None = None


def error_of(message: dramatiq.MessageProxy) -> str | None:
    """The traceback of what went wrong with a message, without characters that a database refuses."""
    if (error := message._exception) is None:
        return None
    lines = "".join(traceback.format_exception(error, limit=30))
    return lines.encode(errors="backslashreplace").decode().replace("\0", r"\x00")


def _after_delivery(deliveries: Any) -> Any:
    """The state of a message that may run: one that took its worker down before is held apart from the others."""
    return case((deliveries > 0, SUSPECT), else_=READY)


_queue = bindparam("of_queue", type_=String())
_owner = bindparam("claimant", type_=String())
_limit = bindparam("limit", type_=Integer())
_ids = bindparam("ids", type_=BigInteger(), expanding=True)
_now = database_time()
# Also a message whose lease ran out, as long as nobody else has claimed it.
_unclaimed = and_(QueueMessage.owner.is_(None), QueueMessage.state == SUSPECT)
_ours = (QueueMessage.id.in_(_ids), or_(QueueMessage.owner == _owner, _unclaimed))


def _first(state: int) -> Any:
    return (
        select(QueueMessage.id)
        .where(QueueMessage.queue == _queue, QueueMessage.state == state)
        .order_by(QueueMessage.priority, QueueMessage.due, QueueMessage.id)
    )


def _claim_first(state: int) -> Any:
    # PostgreSQL locks no more rows than the limit only in a CTE of its own; SQLite has no row locks to skip.
    chosen = _first(state).limit(_limit).with_for_update(skip_locked=True).cte("chosen")
    return (
        update(QueueMessage)
        .where(QueueMessage.id.in_(select(chosen.c.id)))
        .values(state=LATER, due=_now + bindparam("lease"), owner=_owner, deliveries=QueueMessage.deliveries + 1)
        .returning(QueueMessage.id, QueueMessage.priority, QueueMessage.payload, QueueMessage.deliveries)
    )


_due_later = select(QueueMessage.due).where(QueueMessage.queue == _queue, QueueMessage.state == LATER)
_due_now = (
    select(QueueMessage.id)
    .where(QueueMessage.queue == _queue, QueueMessage.state == LATER, QueueMessage.due <= _now)
    .order_by(QueueMessage.due)
    .limit(READY_AT_ONCE)
    .with_for_update(skip_locked=True)
    .cte("due_now")
)
LOOK = select(
    _first(READY).limit(1).scalar_subquery().label("ready"),
    _first(SUSPECT).limit(1).scalar_subquery().label("suspect"),
    (_due_later.order_by(QueueMessage.due).limit(1).scalar_subquery() - _now).label("wait"),
)
MAKE_READY = (
    update(QueueMessage)
    .where(QueueMessage.id.in_(select(_due_now.c.id)))
    .values(state=_after_delivery(QueueMessage.deliveries), owner=None)
)
STORE = insert(QueueMessage).values(due=_now + bindparam("delay"), deliveries=0)
STORE_DEAD = insert(QueueMessage).values(
    state=DEAD, priority=0, due=_now, deliveries=0, error=bindparam("reason", type_=Text())
)
NOTIFY = select(func.pg_notify(CHANNEL, ""))
CLAIM = {state: _claim_first(state) for state in (READY, SUSPECT)}
DELETE = delete(QueueMessage).where(*_ours)
RENEW = update(QueueMessage).where(*_ours).values(state=LATER, due=_now + bindparam("lease"), owner=_owner)
GIVE_BACK = (
    update(QueueMessage)
    .where(*_ours)
    .values(
        state=_after_delivery(QueueMessage.deliveries - 1),
        due=_now,
        owner=None,
        deliveries=QueueMessage.deliveries - 1,
    )
)
SET_ASIDE = update(QueueMessage).where(*_ours).values(state=DEAD, due=_now, owner=None, error=bindparam("reason"))
AGAIN = (
    update(QueueMessage)
    .where(*_ours)
    .values(state=LATER, due=_now + bindparam("delay"), owner=None, deliveries=0, payload=bindparam("message"))
)


class MessageTable:
    """The messages of all queues, as one process sees them.

    Args:
        engine: the service's database.
        current_session: the session of the running request or job, if any. A message stored there exists if and only
            if that session commits.
        lease: seconds until the messages of a silent process are due again.
        max_deliveries: how often a message is handed out before it is set aside, for one that kills its worker.
    """

    def __init__(
        self,
        engine: Engine,
        current_session: Callable[[], Session | None] = lambda: None,
        *,
        lease: float = 30,
        max_deliveries: int = 5,
    ) -> None:
        self.engine = engine
        self.direct = single_statements(engine)
        self.notifies = engine.dialect.name == "postgresql"
        self.current_session = current_session
        self.lease = lease
        self.max_deliveries = max_deliveries
        self.held: set[int] = set()
        self.suspect: int | None = None
        self.look_after: dict[str, float] = {}
        self.claiming = threading.Lock()
        self.writing = threading.Lock()
        self.finished: set[int] = set()

    @cached_property
    def owner(self) -> str:
        """This process, in a way that people can find it. Made at first use, so that forks differ."""
        return f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def store(self, message: dramatiq.Message[Any], delay: int | None = None, *, priority: int = 0) -> None:
        """Store a message, to be run in `delay` milliseconds, with the current session's transaction if there is one.

        Raises:
            TypeError: an argument of the message cannot be written as JSON.
        """
        when = {"state": LATER if delay else READY, "priority": priority, "delay": (delay or 0) / 1000}
        row = self._row(message) | when
        if session := self.current_session():
            self._insert(session.connection(), row)
        else:
            with connection_errors(), self.engine.begin() as connection:
                self._insert(connection, row)

    def store_dead(self, message: dramatiq.MessageProxy, reason: str | None) -> None:
        """Store a message that has failed for good somewhere else."""
        with connection_errors(), self.engine.begin() as connection:
            connection.execute(STORE_DEAD, {**self._row(message), "reason": reason})

    def _row(self, message: dramatiq.Message[Any] | dramatiq.MessageProxy) -> dict[str, Any]:
        return {
            "queue": q_name(message.queue_name),
            "actor": message.actor_name,
            "message_id": message.message_id,
            "payload": _encode(message),
        }

    def _insert(self, connection: Connection, row: dict[str, Any]) -> None:
        connection.execute(STORE, row)
        if self.notifies:
            connection.execute(NOTIFY)

    def claim(self, queue: str, limit: int) -> tuple[list[ClaimedMessage], float | None]:
        """Up to `limit` messages for this process, in order; if there are none, in how many seconds one is due.

        Of messages that came back from a worker that died, a process holds one at a time: the one that killed the
        worker then wears out no other.
        """
        with self.claiming:
            if time.monotonic() < self.look_after.get(queue, 0) and (ready := self._claim(READY, queue, limit)):
                return ready, None
            # A look takes no lock: an idle worker must not hold up SQLite's writers.
            (look,) = self._rows(LOOK, of_queue=queue)
            due = look.wait is not None and look.wait <= 0
            if due:
                # First of all those of this process, whose leases may have run out while the database was locked.
                self.renew()
                self._count(MAKE_READY, of_queue=queue)
            if (due or look.suspect) and self.suspect not in self.held:
                messages = self._claim(SUSPECT, queue, 1)
                self.suspect = messages[0].row_id if messages else None
                if messages:
                    return messages, None
            messages = []
            if due or look.ready:
                messages = self._claim(READY, queue, limit)
                self.look_after[queue] = time.monotonic() + LOOK_INTERVAL
            # A message that waits its turn among those that came back makes no noise when it comes.
            return messages, LOOK_INTERVAL if look.suspect else look.wait

    def _claim(self, state: int, queue: str, limit: int) -> list[ClaimedMessage]:
        with self.writing:
            rows = self._rows(CLAIM[state], of_queue=queue, limit=limit, lease=self.lease, claimant=self.owner)
        messages = []
        for row in sorted(rows, key=lambda row: (row.priority, row.id)):
            try:
                messages.append(ClaimedMessage(row.id, row.deliveries, row.payload))
            except DecodeError as error:
                self._change(SET_ASIDE, [row.id], reason=str(error))
        self.held.update(message.row_id for message in messages)
        return messages

    def finish(self, *messages: ClaimedMessage) -> int:
        """Delete messages that have run, together with those that other threads have finished meanwhile.

        Returns:
            How many of all these were no longer ours, because their leases had ended.
        """
        # One that is not held any more was deleted with another's, after a first try that had failed.
        self.finished.update(message.row_id for message in messages if message.row_id in self.held)
        # One transaction for all who wait here: SQLite has one writer, and lets the others sleep.
        with self.writing:
            if not (batch := list(self.finished)):
                return 0
            lost = len(batch) - self._change(DELETE, batch)
            # Only now: what could not be deleted is tried again with the next.
            self.finished.difference_update(batch)
            return lost

    def run_again(self, message: ClaimedMessage, delay: int) -> int:
        """Let a claimed message wait `delay` milliseconds and run again; returns 0 if it was no longer ours."""
        return self._change(AGAIN, [message.row_id], delay=delay / 1000, message=message.encode())

    def set_aside(self, message: ClaimedMessage, reason: str | None) -> int:
        """Keep a claimed message among the dead; returns 0 if it was no longer ours."""
        return self._change(SET_ASIDE, [message.row_id], reason=reason)

    def give_back(self, row_ids: Iterable[int]) -> None:
        """Let others have messages that were claimed and not finished, at the latest when their leases end."""
        if row_ids := list(row_ids):
            try:
                self._change(GIVE_BACK, row_ids)
            except BrokerConnectionError as error:
                # Nobody here has them in hand any more, so their leases must not be renewed.
                self.held.difference_update(row_ids)
                logger.warning("Messages come back when their leases end, not now: %s", error)

    def renew(self) -> None:
        """Prolong all claims of this process; also one that ran out while nobody else took it."""
        if row_ids := list(self.held):
            self._count(RENEW, ids=row_ids, lease=self.lease, claimant=self.owner)

    def _change(self, statement: Executable, row_ids: list[int], **values: Any) -> int:
        self.held.difference_update(row_ids)
        try:
            return self._count(statement, ids=row_ids, claimant=self.owner, **values)
        except BrokerConnectionError:
            self.held.update(row_ids)
            raise

    def flush(self, queue: str) -> None:
        """Drop a queue's messages, except those that were set aside."""
        self._count(delete(QueueMessage).where(QueueMessage.queue == queue, QueueMessage.state != DEAD))

    def count(self, queue: str, state: int | None = None) -> int:
        """How many messages are in a state; without one, how many wait or run."""
        wanted = QueueMessage.state != DEAD if state is None else QueueMessage.state == state
        ((found,),) = self._rows(select(func.count()).where(QueueMessage.queue == queue, wanted))
        return int(found)

    def close(self) -> None:
        """Let others have what was not finished in the time that it was given."""
        with suppress(BrokerConnectionError):
            self.finish()
        self.give_back(self.held)
        if self.direct.pool is not self.engine.pool:
            self.direct.dispose()

    def check(self) -> None:
        """Raise if the table cannot be read."""
        self._rows(select(QueueMessage.id).limit(1))

    def _rows(self, statement: Executable, **values: Any) -> Sequence[Row[Any]]:
        with connection_errors(), self.direct.connect() as connection:
            return connection.execute(statement, values).all()

    def _count(self, statement: Executable, **values: Any) -> int:
        with connection_errors(), self.direct.connect() as connection:
            return connection.execute(statement, values).rowcount


@contextmanager
def connection_errors(driver: type[Exception] = exc.DBAPIError) -> Iterator[None]:
    """A failing database as the error on which Dramatiq's worker tries again; on any other one it gives up."""
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, driver) as error:
        # Without the statement, which says nothing to who has to mend it.
        raise BrokerConnectionError(str(getattr(error, "orig", None) or error)) from error


def _encode(message: dramatiq.Message[Any] | dramatiq.MessageProxy) -> bytes:
    try:
        return bytes(message.encode())
    except (TypeError, ValueError) as error:
        raise TypeError(f"{message.actor_name}: arguments of a job have to be JSON: {error}") from None
