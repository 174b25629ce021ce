"""The queue in a database, as this process and others have it open."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

import database.broker
from database import connect, sessions
from database.broker import DatabaseBroker, QueueMessage
from tests.infrastructure.queue.workers import Place, eventually


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty queue; a test that asks for it runs on each database."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'queue.sqlite3'}" if is_sqlite else request.getfixturevalue("postgres_url")
    engine = connect(url)
    QueueMessage.metadata.create_all(engine, tables=[QueueMessage.metadata.tables["queue_message"]])
    engine.dispose()
    return Place(url, tmp_path)


@dataclass
class Queue:
    """A broker in this process, and what a test wants to do with it."""

    broker: DatabaseBroker
    engine: Engine
    session: Session | None = None
    """The transaction in which messages are sent."""
    workers: list[dramatiq.Worker] = field(default_factory=list)

    def actor(self, function: Callable[..., Any], name: str = "job", **options: Any) -> dramatiq.Actor[..., Any]:
        """Make a function a job."""
        actor: dramatiq.Actor[..., Any] = dramatiq.actor(broker=self.broker, actor_name=name, **options)(function)
        return actor

    def send(self, *numbers: int, delay: int | None = None, queue: str = "default") -> None:
        """Send jobs that no worker knows."""
        for number in numbers:
            self.broker.enqueue(dramatiq.Message(queue, "job", (number,), {}, {}), delay=delay)

    def work(self, threads: int = 2, **options: Any) -> dramatiq.Worker:
        """Start a worker, which is stopped at the end of the test."""
        worker = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=20, **options)
        worker.start()
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """Stop all workers."""
        while self.workers:
            self.workers.pop().stop()

    def rows(self) -> list[QueueMessage]:
        """All messages."""
        with sessions(self.engine, read_only=True)() as session:
            return list(session.scalars(select(QueueMessage).order_by(QueueMessage.id)))

    def dead(self) -> QueueMessage:
        """The one message that was set aside, once it is there."""
        eventually(lambda: any(row.dead for row in self.rows()))
        (row,) = (row for row in self.rows() if row.dead)
        return row

    def move_clock(self, seconds: float) -> None:
        """Let time pass for all messages that wait until some time."""
        with sessions(self.engine).begin() as session:
            session.execute(update(QueueMessage).values(due=QueueMessage.due - seconds))


OpenQueue = Callable[..., Queue]


@pytest.fixture
def open_queue(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenQueue]:
    """Opens the queue as a process does. Each has an engine of its own."""
    monkeypatch.setattr("database.broker.LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.02)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.02)
    opened: list[Queue] = []

    def open_queue(*, threads: int = 1, **options: Any) -> Queue:
        engine = connect(place.database)
        broker = DatabaseBroker(engine, lambda: found.session, **options)
        # What a worker tells it; here, a test takes messages itself.
        broker.emit_before("worker_boot", SimpleNamespace(worker_threads=threads))
        found = Queue(broker, engine)
        opened.append(found)
        return found

    yield open_queue
    for queue in opened:
        queue.stop()
        queue.broker.close()
        queue.engine.dispose()


@pytest.fixture
def queue(open_queue: OpenQueue) -> Queue:
    """The queue, opened once."""
    return open_queue()


@pytest.fixture
def time_is_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ends the time that a message may wait in a process without being started."""
    return lambda: monkeypatch.setattr(database.broker, "QUICK", -1)
