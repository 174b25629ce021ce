"""Where messages wait while they are measured: databases and servers that end with the benchmark."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from benchmarks import PROJECT, TEMPLATE
from benchmarks.rows import Row
from database import Base, connect
from database.broker import DatabaseBroker, QueueMessage
from database.schedule import ScheduleSlot
from tests.infrastructure.servers import Postgres, Redis, find, serve


class RealPostgres(Postgres):
    """PostgreSQL with its own defaults: the tests' one does not write to disk, and figures must not gain by that."""

    def command(self) -> list[str]:
        where = [f"listen_addresses={self.url.split('@')[-1].split(':')[0]}", f"port={self.port}"]
        return ["postgres", "-D", "data", *(f"--{setting}" for setting in (*where, "unix_socket_directories="))]


SERVERS: dict[str, Any] = {"PostgreSQL": RealPostgres, "Redis": Redis}


@dataclass(frozen=True)
class Place:
    """A database with the tables of queue and scheduler, the URL of the broker if that is another, and a folder."""

    database: str
    queue: str
    folder: Path

    @property
    def record(self) -> Path:
        """What jobs have written."""
        return self.folder / "record"

    @property
    def environment(self) -> dict[str, str]:
        """What processes need to know."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(TEMPLATE)]),
            "BENCH_DATABASE": self.database,
            "QUEUE_URL": self.queue,
            "RECORD": str(self.record),
        }


class Places:
    """Makes places. Servers start when they are first needed."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.folder = Path(stack.enter_context(TemporaryDirectory(prefix="queue-bench-")))
        self.numbers = itertools.count(1)
        self.servers: dict[str, Any] = {}

    def fresh(self, name: str) -> Place:
        """A place without a message, in a database, or on Redis."""
        number = next(self.numbers)
        folder = self.folder / str(number)
        folder.mkdir()
        if name in SERVERS and name not in self.servers:
            self.servers[name] = self.stack.enter_context(contextmanager(serve)(SERVERS[name]))
        server: Any = self.servers.get(name)
        if name == "Redis":
            server.clear()
            # The tests' Redis writes a log of all commands, as it does not by default. Peers must not lose by it.
            redis.Redis.from_url(server.url).config_set("appendonly", "no")
            return Place("", f"{server.url}0", folder)
        url = f"sqlite:///{folder}/app.sqlite3"
        if server:
            server.execute(f"CREATE DATABASE place_{number}")
            url = f"{server.url}place_{number}"
        engine = connect(url)
        Base.metadata.create_all(engine, tables=[QueueMessage.__table__, ScheduleSlot.__table__])
        engine.dispose()
        return Place(url, "", folder)


def missing(name: str) -> str:
    """What a place needs and is not installed, in a line; nothing if all is there."""
    programs = SERVERS[name].programs if name in SERVERS else {}
    packages = sorted({package for program, package in programs.items() if not find(program)})
    return f"needs {name}: apt install {' '.join(packages)}" if packages else ""


def on_each(rows: Mapping[str, Row], measure: Callable[[Places, str], Row]) -> Iterator[Row]:
    """Measure one row after the other; a server that is missing costs only its own."""
    for name, row in rows.items():
        if reason := missing(name):
            yield row.without(reason)
            continue
        with ExitStack() as stack:
            yield measure(Places(stack), name)


def broker_of(place: Place) -> Any:
    """The queue in a place's database."""
    return DatabaseBroker(connect(place.database), lambda: None)
