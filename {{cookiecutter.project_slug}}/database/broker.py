"""A Dramatiq broker whose queue is a table of the service's own database.

A message is claimed for the time of a lease, which its worker renews for as long as it lives. A worker that is
killed stops renewing, so its messages are due again when the lease ends: a job runs at least once.
"""

import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.errors import BrokerConnectionError, DecodeError, QueueJoinTimeout
from sqlalchemy import Delete, Engine, LargeBinary, String, Text, Update, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.schema import Index

from database.base import Base, PrimaryKey
from database.engine import sessions

WAITING, DEAD = 0, 1


class QueueMessage(Base):
    """A message that waits, runs, or was set aside.

    `due` is when it may be claimed, in seconds since the epoch; while it is claimed, when the claim ends.
    """

    __tablename__ = "queue_message"
    __table_args__ = (Index("ix_queue_message_claim", "queue", "state", "due"), {"sqlite_autoincrement": True})

    id: Mapped[PrimaryKey]
    queue: Mapped[str] = mapped_column(String(100))
    actor: Mapped[str] = mapped_column(String(200))
    state: Mapped[int]
    due: Mapped[float]
    owner: Mapped[str | None] = mapped_column(String(32))
    deliveries: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    error: Mapped[str | None] = mapped_column(Text)


class DatabaseBroker(dramatiq.Broker):
    """Keeps messages in `queue_message`.

    Args:
        engine: the service's database.
        current_session: the session of the running request or job, if any. A message sent there is stored by
            that session's commit and vanishes with its rollback.
        lease: seconds until a silent worker's messages are due again.
        max_deliveries: how often a message is handed out before it is set aside, for one that kills its worker.
        poll_interval: longest pause, in seconds, between two looks at an empty queue.
        middleware: as for every Dramatiq broker.
    """

    def __init__(
        self,
        engine: Engine,
        current_session: Callable[[], Session | None] = lambda: None,
        *,
        lease: float = 30,
        max_deliveries: int = 5,
        poll_interval: float = 0.2,
        middleware: list[dramatiq.Middleware] | None = None,
    ) -> None:
        super().__init__(middleware=middleware)
        self.queues: set[str] = set()
        self.engine = engine
        self.transaction = sessions(engine)
        self.current_session = current_session
        self.lease = lease
        self.max_deliveries = max_deliveries
        self.poll_interval = poll_interval

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known to workers; the table needs no preparation."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """All queues declared so far."""
        return self.queues.copy()

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Store a message, due in `delay` milliseconds, with the current session's transaction if there is one.

        A claimed message that is sent again, which is what a retry is, waits in the row that it has; its `ack` says so
        in the database, in one step, so that no moment exists in which it could be lost.
        """
        self.emit_before("enqueue", message, delay)
        due = time.time() + (delay or 0) / 1000
        if isinstance(message, ClaimedMessage):
            message.due_again = due
        else:
            self._store(message, due)
        self.emit_after("enqueue", message, delay)
        return message

    def _store(self, message: dramatiq.Message[Any], due: float) -> None:
        row = insert(QueueMessage).values(
            queue=message.queue_name,
            actor=message.actor_name,
            state=WAITING,
            due=due,
            deliveries=0,
            payload=message.encode(),
        )
        if session := self.current_session():
            session.execute(row)
        else:
            with self.transaction.begin() as own:
                own.execute(row)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> "DatabaseConsumer":
        """Iterate over a queue's messages, holding at most `prefetch` of them."""
        return DatabaseConsumer(self, queue_name, prefetch, timeout)

    def flush(self, queue_name: str) -> None:
        """Drop a queue's messages."""
        with self.transaction.begin() as session:
            session.execute(delete(QueueMessage).where(QueueMessage.queue == queue_name))

    def flush_all(self) -> None:
        """Drop the messages of all queues."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until a queue has no message left to run.

        Raises:
            QueueJoinTimeout: after `timeout` milliseconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while self.count(queue_name):
            if deadline is not None and time.monotonic() > deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(0.01)

    def check(self) -> None:
        """Raise if the table cannot be read."""
        with sessions(self.engine, read_only=True)() as session:
            session.execute(select(QueueMessage.id).limit(1))

    def count(self, queue_name: str, state: int = WAITING) -> int:
        """How many messages wait or run, or (with `DEAD`) were set aside."""
        query = select(func.count()).where(QueueMessage.queue == queue_name, QueueMessage.state == state)
        with sessions(self.engine, read_only=True)() as session:
            return session.scalar(query) or 0


class ClaimedMessage(dramatiq.MessageProxy):
    """A message with the row it came from, the consumer that claimed it, and when to run it again, if so."""

    def __init__(self, row_id: int, payload: bytes, owner: str) -> None:
        super().__init__(dramatiq.Message.decode(payload))
        self.row_id = row_id
        self.owner = owner
        self.due_again: float | None = None

    @property
    def error(self) -> str | None:
        """The traceback of what went wrong."""
        return "".join(traceback.format_exception(self._exception, limit=30)) if self._exception else None


@contextmanager
def _connection_errors() -> Iterator[None]:
    """A failing database as the error on which Dramatiq's worker tries again; on any other one it gives up."""
    try:
        yield
    except SQLAlchemyError as error:
        raise BrokerConnectionError(str(error)) from error


class DatabaseConsumer(dramatiq.Consumer):
    """Claims messages of one queue and renews its claims from a thread of its own."""

    def __init__(self, broker: DatabaseBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout / 1000
        self.owner = uuid.uuid4().hex
        self.claimed: list[ClaimedMessage] = []
        self.running: set[int] = set()
        self.suspect: int | None = None
        self.pause = 0.01
        self.closed = threading.Event()
        threading.Thread(target=self._renew, name=f"lease-{queue_name}", daemon=True).start()

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message, or None after a short wait."""
        if not self.claimed and len(self.running) < self.prefetch:
            self.claimed = self._claim(self.prefetch - len(self.running))
        if not self.claimed:
            self.closed.wait(min(self.pause, self.timeout))
            self.pause = min(self.pause * 1.5, self.broker.poll_interval)
            return None
        self.pause = 0.01
        message = self.claimed.pop(0)
        self.running.add(message.row_id)
        return message

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """The job is done, and its row goes; or it has to run again, and its row waits."""
        if message.due_again is None:
            self._finish(message, delete(QueueMessage))
        else:
            again = {"due": message.due_again, "owner": None, "deliveries": 0, "payload": message.encode()}
            self._finish(message, update(QueueMessage).values(again))

    def nack(self, message: dramatiq.MessageProxy) -> None:
        """The job has failed for good: its row stays, set aside."""
        self._finish(message, update(QueueMessage).values(state=DEAD, owner=None, error=message.error))

    def requeue(self, messages: Iterable[dramatiq.MessageProxy]) -> None:
        """Give messages back that were claimed and not started."""
        owners = {message.row_id: message.owner for message in messages}
        if not owners:
            return  # Dramatiq asks for this first when it closes a consumer, also when the database is gone.
        with _connection_errors(), self.broker.transaction.begin() as session:
            session.execute(
                update(QueueMessage)
                .where(QueueMessage.id.in_(owners), QueueMessage.owner.in_(set(owners.values())))
                .values(due=time.time(), owner=None, deliveries=QueueMessage.deliveries - 1)
            )
        self.running -= owners.keys()

    def close(self) -> None:
        """Give back what is left and stop renewing."""
        self.closed.set()
        self.requeue(self.claimed)

    def _claim(self, limit: int) -> list[ClaimedMessage]:
        now = time.time()
        waiting = [QueueMessage.queue == self.queue_name, QueueMessage.state == WAITING, QueueMessage.due <= now]
        if self.suspect in self.running:
            waiting.append(QueueMessage.deliveries == 0)
        # A look without the write lock first: an idle worker must not hold up SQLite's writers.
        look = select(QueueMessage.id, QueueMessage.deliveries).where(*waiting).order_by(QueueMessage.due).limit(1)
        with _connection_errors(), sessions(self.broker.engine, read_only=True)() as session:
            if (first := session.execute(look).first()) is None:
                return []
        # A message whose worker died may have killed it. Held one at a time, it wears out no other such message.
        if first.deliveries:
            self.suspect = first.id
            waiting.append(QueueMessage.id == first.id)
        else:
            waiting.append(QueueMessage.deliveries == 0)
        chosen = select(QueueMessage.id).where(*waiting).order_by(QueueMessage.due).limit(limit)
        claim = (
            update(QueueMessage)
            .where(QueueMessage.id.in_(chosen.with_for_update(skip_locked=True).scalar_subquery()))
            .values(due=now + self.broker.lease, owner=self.owner, deliveries=QueueMessage.deliveries + 1)
            .returning(QueueMessage.id, QueueMessage.payload, QueueMessage.deliveries)
            .execution_options(synchronize_session=False)
        )
        messages = []
        with _connection_errors(), self.broker.transaction.begin() as session:
            for row in session.execute(claim).all():
                error = None
                if row.deliveries > self.broker.max_deliveries:
                    error = f"handed out {self.broker.max_deliveries} times, and its worker died each time"
                else:
                    try:
                        messages.append(ClaimedMessage(row.id, row.payload, self.owner))
                    except DecodeError as failure:
                        error = str(failure)
                if error:
                    aside = update(QueueMessage).where(QueueMessage.id == row.id)
                    session.execute(aside.values(state=DEAD, owner=None, error=error))
        return messages

    def _finish(self, message: dramatiq.MessageProxy, statement: Delete | Update) -> None:
        with _connection_errors(), self.broker.transaction.begin() as session:
            session.execute(statement.where(QueueMessage.id == message.row_id, QueueMessage.owner == message.owner))
        self.running.discard(message.row_id)

    def _renew(self) -> None:
        while not self.closed.wait(self.broker.lease / 3):
            try:
                with self.broker.transaction.begin() as session:
                    session.execute(
                        update(QueueMessage)
                        .where(QueueMessage.owner == self.owner, QueueMessage.state == WAITING)
                        .values(due=time.time() + self.broker.lease)
                    )
            except Exception:
                self.broker.logger.exception("Leases of queue %s were not renewed; trying again.", self.queue_name)
