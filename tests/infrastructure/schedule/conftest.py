"""A ledger with its broker, on SQLite and on PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from database import Base, connect, sessions
from database.broker import DatabaseBroker, QueueMessage
from database.schedule import Schedule, ScheduleSlot, SlotOutcomes, send_due
from tests.infrastructure.queue.workers import wait_until_empty

Job = Callable[[str], None]


def nothing(slot: str) -> None:
    """A job."""


class Ledger:
    """What a scheduler and a worker of one process have in common: the broker sends with the current transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.sessions = engine, sessions(engine)
        self.current: ContextVar[Session | None] = ContextVar("current", default=None)
        self.broker = DatabaseBroker(engine, self.current.get)
        self.broker.add_middleware(SlotOutcomes(engine), before=type(self.broker.middleware[0]))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self.sessions.begin() as session:
            token = self.current.set(session)
            try:
                yield session
            finally:
                self.current.reset(token)

    def schedule(
        self,
        cron: str = "0 * * * *",
        timezone: str = "UTC",
        *,
        name: str = "report",
        job: Job = nothing,
        **options: Any,
    ) -> Schedule:
        catch_up = options.pop("catch_up", True)
        self.broker.actors.pop(name, None)
        actor = dramatiq.actor(broker=self.broker, actor_name=name, **options)(job)
        return Schedule(name, actor, cron, ZoneInfo(timezone), catch_up)

    def send(self, due: Schedule, now: datetime, *, enabled: bool = True) -> bool:
        with self.transaction() as session:
            return bool(send_due(due, session, now, enabled=enabled))

    def sent(self) -> list[str]:
        """Name and slot of all jobs, in the order in which they were sent."""
        with self.sessions() as session:
            payloads = session.scalars(select(QueueMessage.payload).order_by(QueueMessage.id)).all()
        messages = [dramatiq.Message[None].decode(payload) for payload in payloads]
        return [f"{message.actor_name} {message.args[0]:.16}" for message in messages]

    def rows(self) -> list[ScheduleSlot]:
        with self.sessions() as session:
            return list(session.scalars(select(ScheduleSlot).order_by(ScheduleSlot.slot)))

    def outcomes(self) -> list[str]:
        return [row.outcome for row in self.rows()]

    def work(self) -> None:
        """Let a worker run until the queue is empty."""
        worker = dramatiq.Worker(self.broker, worker_timeout=10, worker_threads=1)
        worker.start()
        try:
            wait_until_empty(self.broker)
        finally:
            worker.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the tables of queue and ledger."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}" if is_sqlite else str(request.getfixturevalue("postgres_url"))
    engine = connect(url)
    Base.metadata.create_all(engine, tables=[Base.metadata.tables[name] for name in ("queue_message", "schedule_slot")])
    engine.dispose()
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    engine = connect(url)
    ledger = Ledger(engine)
    yield ledger
    ledger.broker.close()
    engine.dispose()
