"""Queues on every broker: a table in SQLite or PostgreSQL, and Redis and RabbitMQ behind a table in SQLite."""

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq.worker
import pytest
from sqlalchemy import Engine, Table, select, update
from sqlalchemy.orm import Session

from database import connect, sessions
from database.broker import TableBroker
from database.broker_url import open_broker
from database.messages import DEAD, MessageTable, QueueMessage
from database.rate_limits import RateLimit
from tests.infrastructure.queue.workers import Place, eventually

BACKENDS = ["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("postgresql", "redis", "rabbitmq"))]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a broker; a test that asks for it runs on each."""
    return str(request.param)


@pytest.fixture
def place(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty queue, which processes can be told of."""
    if backend == "postgresql":
        return Place(new_tables(request.getfixturevalue("postgres_url")), "", tmp_path)
    shutil.copyfile(request.getfixturevalue("migrated_database"), tmp_path / "queue.sqlite3")
    queue = "" if backend == "sqlite" else request.getfixturevalue(f"{backend}_url")
    return Place(f"sqlite:///{tmp_path / 'queue.sqlite3'}", queue, tmp_path)


def new_tables(url: str) -> str:
    """Make the tables that the queue needs, without waiting for all migrations."""
    engine = connect(url)
    for model in (QueueMessage, RateLimit):
        assert isinstance(model.__table__, Table)
        model.__table__.create(engine)
    engine.dispose()
    return url


@dataclass
class Queue:
    """A broker in this process, and what a test wants to do with it."""

    broker: TableBroker
    engine: Engine
    session: Session | None = None
    """The transaction in which messages are sent."""
    workers: list[dramatiq.Worker] = field(default_factory=list)

    @property
    def table(self) -> MessageTable:
        return self.broker.table

    def actor(self, function: Callable[..., Any], name: str = "job", **options: Any) -> dramatiq.Actor[..., Any]:
        """Make a function a job."""
        actor: dramatiq.Actor[..., Any] = dramatiq.actor(broker=self.broker, actor_name=name, **options)(function)
        return actor

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
        """All messages in the table."""
        with sessions(self.engine, read_only=True)() as session:
            return list(session.scalars(select(QueueMessage).order_by(QueueMessage.id)))

    def dead(self, count: int = 1) -> list[QueueMessage]:
        """The messages that were set aside, once there are so many."""
        eventually(lambda: sum(row.state == DEAD for row in self.rows()) >= count)
        return [row for row in self.rows() if row.state == DEAD]

    def move_clock(self, seconds: float) -> None:
        """Let time pass for all messages that wait until some time."""
        with sessions(self.engine).begin() as session:
            session.execute(update(QueueMessage).values(due=QueueMessage.due - seconds))


OpenQueue = Callable[..., Queue]


@pytest.fixture
def open_queue(backend: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenQueue]:
    """Opens the queue as a process does. Each has an engine of its own."""
    # RabbitMQ lets one wait for a minute who asks for a queue that is being recovered. Dramatiq's pause is 3 seconds.
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 1 if backend == "rabbitmq" else 0.02)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.02)
    opened: list[Queue] = []
    before = set(threading.enumerate())

    def open_queue(*, lease: float = 30, max_deliveries: int = 3, queue: str | None = None, **options: Any) -> Queue:
        engine = connect(place.database, **options)
        table = MessageTable(engine, lambda: found.session, lease=lease, max_deliveries=max_deliveries)
        broker = open_broker(place.queue if queue is None else queue, table, poll_interval=0.02)
        found = Queue(broker, engine)
        opened.append(found)
        return found

    yield open_queue
    for queue in opened:
        queue.stop()
        queue.broker.close()
        queue.engine.dispose()
    new = set(threading.enumerate()) - before
    left = [thread.name for thread in new if thread.name.startswith(("lease", "outbox"))]
    assert not left


@pytest.fixture
def queue(open_queue: OpenQueue) -> Queue:
    """The queue, opened once."""
    return open_queue()


@pytest.fixture
def hasty(place: Place) -> Place:
    """The same queue with a short lease, for workers that are killed."""
    return replace(place, lease=1)


def see_leases_renewed(queue: Queue, leases: int) -> None:
    """Wait until what workers hold was renewed for so many leases; on RabbitMQ, a connection is all that they need."""
    from database.rabbitmq_broker import RabbitmqBroker
    from database.redis_broker import RedisBroker

    def ends() -> list[float]:
        if isinstance(queue.broker, RedisBroker):
            beats: Any = queue.broker.client.zrange("dramatiq:__heartbeats__", 0, -1, withscores=True)
            return [beat / 1000 for _, beat in beats]
        return [row.due for row in queue.rows() if row.owner]

    if not isinstance(queue.broker, RabbitmqBroker):
        eventually(ends)
        target = max(ends()) + leases * queue.table.lease
        eventually(lambda: min(ends()) > target)
