"""What the queues did, minute by minute: how much waited, and how many jobs ended how."""

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

import dramatiq
from dramatiq.common import q_name
from dramatiq.errors import BrokerConnectionError
from sqlalchemy import Engine, String, delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import queue_admin
from database.attempts import Attempts
from database.base import Base, insert_new, utc_now
from database.broker import TableBroker
from database.engine import sessions

MINUTE = timedelta(minutes=1)
# Seconds that a worker collects what it has done before it writes it.
COLLECT = 5.0

logger = logging.getLogger(__name__)


class QueueMinute(Base):
    """A minute of a queue. `waiting` is what a scheduler saw at its start, None if no scheduler ran.

    `done` and `failed` are attempts that ended in it, and `seconds` is how long they took together.
    """

    __tablename__ = "queue_minute"

    minute: Mapped[datetime] = mapped_column(primary_key=True)
    queue: Mapped[str] = mapped_column(String(100), primary_key=True)
    waiting: Mapped[int | None]
    done: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(default=0)


@dataclass
class _Counted:
    done: int = 0
    failed: int = 0
    seconds: float = 0


class JobCounts(Attempts):
    """Counts the jobs of a worker process, and adds the counts to the table a few seconds later."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.transaction = sessions(engine)
        self.lock = threading.Lock()
        self.counted: defaultdict[tuple[datetime, str], _Counted] = defaultdict(_Counted)
        self.timer: threading.Timer | None = None

    def ended(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy, seconds: float, *, failed: bool) -> None:
        """Count an attempt."""
        with self.lock:
            counted = self.counted[_this_minute(), q_name(message.queue_name)]
            if failed:
                counted.failed += 1
            else:
                counted.done += 1
            counted.seconds += seconds
            if self.timer is None:
                self.timer = threading.Timer(COLLECT, self.write)
                self.timer.daemon = True
                self.timer.start()

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        """Write what is left."""
        with self.lock:
            if self.timer:
                self.timer.cancel()
        self.write()

    def write(self) -> None:
        """Add what was counted to the table. What cannot be written is lost, with a line in the log."""
        with self.lock:
            counted, self.counted, self.timer = self.counted, defaultdict(_Counted), None
        try:
            if counted:
                with self.transaction.begin() as session:
                    # In the order of everybody else, so that no two wait for each other's rows.
                    for key in sorted(counted):
                        _add(session, *key, counted[key])
        except SQLAlchemyError as error:
            logger.warning("counts of jobs are lost: %s", error)


def sample(broker: TableBroker) -> None:
    """Note how much waits in each queue now."""
    waiting = {queue: queue_admin.status(broker, queue).waiting for queue in queue_admin.queue_names(broker)}
    minute = _this_minute()
    with sessions(broker.table.engine).begin() as session:
        for queue, count in waiting.items():
            _row(session, minute, queue).waiting = count


def sample_every_minute(broker: TableBroker, stop: threading.Event) -> None:
    """Note it at the start of every minute until `stop` is set."""
    while True:
        try:
            sample(broker)
        except (SQLAlchemyError, BrokerConnectionError) as error:
            logger.warning("what waits in the queues is not known: %s", error)
        if stop.wait(60 - time.time() % 60):
            return


def minutes(session: Session, since: datetime) -> list[QueueMinute]:
    """The minutes of all queues from a time on, the oldest first. One in which nothing happened has no row."""
    order = select(QueueMinute).where(QueueMinute.minute >= since).order_by(QueueMinute.minute, QueueMinute.queue)
    return list(session.scalars(order))


def last_sample(session: Session) -> datetime | None:
    """The last minute in which a scheduler was alive."""
    return session.scalar(select(func.max(QueueMinute.minute)).where(QueueMinute.waiting.is_not(None)))


def forget_old(session: Session, before: datetime) -> int:
    """Delete minutes before that time; returns how many."""
    old = delete(QueueMinute).where(QueueMinute.minute < before).returning(QueueMinute.minute)
    return len(session.scalars(old).all())


def _this_minute() -> datetime:
    return utc_now().replace(second=0, microsecond=0)


def _row(session: Session, minute: datetime, queue: str) -> QueueMinute:
    """The row of a minute, which may be new, and which nobody else changes until the end of the transaction."""
    insert_new(session, QueueMinute(minute=minute, queue=queue))
    return session.get_one(QueueMinute, (minute, queue), with_for_update=True, populate_existing=True)


def _add(session: Session, minute: datetime, queue: str, counted: _Counted) -> None:
    row = _row(session, minute, queue)
    row.done += counted.done
    row.failed += counted.failed
    row.seconds += counted.seconds
