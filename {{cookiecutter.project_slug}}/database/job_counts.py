"""How many jobs were done and how many failed, by hour and actor, whatever broker carries them."""

import logging
import threading
import time
from collections import Counter
from typing import Any

import dramatiq
from sqlalchemy import BigInteger, Engine, String, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from database.base import Base

# Seconds that a worker collects counts before it writes them.
COLLECT = 5.0
ADD = text(
    "INSERT INTO job_count (hour, actor, outcome, jobs) VALUES (:hour, :actor, :outcome, :jobs)"
    " ON CONFLICT (hour, actor, outcome) DO UPDATE SET jobs = job_count.jobs + excluded.jobs"
)

logger = logging.getLogger(__name__)


class JobCount(Base):
    """How many attempts at a job were done, or failed, in the hour that begins `hour` seconds after the epoch."""

    __tablename__ = "job_count"

    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    actor: Mapped[str] = mapped_column(String(200), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(10), primary_key=True)
    jobs: Mapped[int]


class CountJobs(dramatiq.Middleware):
    """Counts attempts, and adds the counts to the table some seconds later."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.lock, self.timer = engine, threading.Lock(), threading.Timer(COLLECT, self.write)
        self.counts: Counter[tuple[int, str, str]] = Counter()

    def after_process_message(self, broker: object, message: dramatiq.MessageProxy, **ended: object) -> None:
        outcome = "failed" if ended.get("exception") or message.failed else "done"
        with self.lock:
            if not self.counts:
                self.timer = threading.Timer(COLLECT, self.write)
                self.timer.start()
            self.counts[int(time.time()) // 3600 * 3600, message.actor_name, outcome] += 1

    after_skip_message = after_process_message

    def after_worker_shutdown(self, _broker: Any, _worker: Any) -> None:
        self.timer.cancel()
        self.write()

    def write(self) -> None:
        """Add the counts to the table. While the database is away they are lost, and the log says so."""
        with self.lock:
            counts, self.counts = self.counts, Counter()
        # In one order, so that no two workers wait for each other's rows.
        rows = [{"hour": h, "actor": a, "outcome": o, "jobs": jobs} for (h, a, o), jobs in sorted(counts.items())]
        try:
            if rows:
                with self.engine.begin() as connection:
                    connection.execute(ADD, rows)
        except SQLAlchemyError as error:
            logger.warning("counts of %d jobs are lost: %s", counts.total(), error)
