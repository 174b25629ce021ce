"""Where messages wait while they are measured: databases, servers and processes that end with the benchmark."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from benchmarks.queue import TEMPLATE
from database import connect
from database.broker import DatabaseBroker
from tests.infrastructure.servers import Postgres, RabbitMQ, Redis, find, serve

PATIENCE = 120
DATABASES = ("SQLite", "PostgreSQL")
BROKERS = (*DATABASES, "Redis", "RabbitMQ")


class RealPostgres(Postgres):
    """PostgreSQL with its own defaults: the tests' one does not write to disk, and figures must not gain by that."""

    def command(self) -> list[str]:
        where = [f"listen_addresses={self.url.split('@')[-1].split(':')[0]}", f"port={self.port}"]
        return ["postgres", "-D", "data", *(f"--{setting}" for setting in (*where, "unix_socket_directories="))]


@dataclass(frozen=True)
class Place:
    """A migrated database of its own, and the URL of the broker; the files of whoever works here are in `folder`."""

    database: str
    queue: str
    folder: Path

    @property
    def record(self) -> Path:
        """What jobs have written."""
        return self.folder / "record"


class Places:
    """Makes places. Servers start when they are first needed."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.folder = Path(stack.enter_context(TemporaryDirectory(prefix="queue-bench-")))
        self.numbers = itertools.count(1)
        self.processes: list[subprocess.Popen[str]] = []
        self.servers: dict[Any, Any] = {}
        self.migrated: dict[str, Place] = {}
        stack.callback(self.kill_all)
        # The hooks remove what was not chosen and check the rest; with the default answers the service is the same.
        bake = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--accept-hooks", "no"]
        bake += ["project_slug=my_service"]
        subprocess.run([*bake, "-o", str(self.folder)], check=True, stdout=subprocess.DEVNULL)
        self.project = self.folder / "my_service"
        (self.project / "app/bench").mkdir()
        shutil.copyfile(TEMPLATE / "benchmarks/queue/feature.py", self.project / "app/bench/__init__.py")

    def fresh(self, name: str) -> Place | None:
        """A place without a message; None if its server is not installed."""
        number = next(self.numbers)
        folder = self.folder / f"place-{number}"
        place = Place(self._database(name, folder), self._queue(name, number), folder)
        return None if "-" in (place.database, place.queue) else place

    def _database(self, name: str, folder: Path) -> str:
        """The URL of a copy of a database that was migrated once, with its app folder; "-" if there is no server."""
        kind = "PostgreSQL" if name == "PostgreSQL" else "SQLite"
        if kind == "PostgreSQL" and not self._server(RealPostgres):
            return "-"
        if kind not in self.migrated:
            migrated = self.folder / kind
            migrated.mkdir()
            self.migrated[kind] = Place(self._url(kind, migrated, ""), "", migrated)
            for command in (("appdir", "make"), ("db", "upgrade")):
                code = self.start(self.migrated[kind], "main.py", *command, cwd=self.project).wait(PATIENCE)
                assert code == 0, (migrated / "log").read_text()
        shutil.copytree(self.migrated[kind].folder / "app", folder / "app")
        return self._url(kind, folder, f"TEMPLATE {kind.lower()}")

    def _url(self, kind: str, folder: Path, template: str) -> str:
        if kind == "SQLite":
            return f"sqlite:///{folder}/app/data/app.sqlite3"
        database = folder.name.replace("-", "_").lower()
        self._server(RealPostgres).execute(f"CREATE DATABASE {database} {template}")
        return str(self._server(RealPostgres).url) + database

    def _queue(self, name: str, number: int) -> str:
        """The URL of an empty queue on a server, "" for the database itself, "-" if there is no server."""
        if name in DATABASES:
            return ""
        server = self._server(RabbitMQ if name == "RabbitMQ" else Redis)
        if server and name == "RabbitMQ":
            server.add_vhost(f"place-{number}")
            return f"{server.url}place-{number}"
        if server:
            server.clear()
            # The tests' Redis writes a log of all commands, as it does not by default. Peers must not lose by it.
            redis.Redis.from_url(server.url).config_set("appendonly", "no")
        return f"{server.url}0" if server else "-"

    def _server(self, kind: Any) -> Any:
        if kind not in self.servers:
            missing = [package for program, package in kind.programs.items() if not find(program)]
            if missing:
                print(f"left out: {kind.__name__}, needs {', '.join(missing)}")
            server = None if missing else self.stack.enter_context(contextmanager(serve)(kind))
            self.servers[kind] = server
        return self.servers[kind]

    def start(
        self,
        place: Place,
        *arguments: str,
        cwd: Path = TEMPLATE,
        quiet: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start Python in a session of its own, with its messages in `log` unless `quiet`. It is killed in the end."""
        with open(os.devnull if quiet else place.folder / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=cwd,
                env={**self.environment(place), **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if "send" in arguments else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_service(
        self, place: Place, *arguments: str, quiet: bool = False, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start one of the generated service's processes, as in production."""
        environ = {"APP_ENV": "production", **(environ or {})}
        return self.start(place, *arguments, cwd=self.project, quiet=quiet, environ=environ)

    def kill_all(self) -> None:
        """End every process that was started."""
        while self.processes:
            kill(self.processes.pop())

    def send(self, place: Place, module: str, actor: str, jobs: int, environ: Mapping[str, str] | None = None) -> float:
        """Send jobs from a process of its own; returns how many a second."""
        process = self.start(place, "-m", f"benchmarks.queue.{module}", "send", actor, str(jobs), environ=environ)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, (place.folder / "log").read_text()
        return jobs / float(output)

    def environment(self, place: Place) -> dict[str, str]:
        """What processes need to know; nothing of the developer's own services comes in."""
        outside = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
        return {
            **outside,
            "PYTHONPATH": os.pathsep.join([str(self.project), str(TEMPLATE)]),
            "DATABASE_URL": "" if place.database.startswith("sqlite") else place.database,
            "BENCH_DATABASE": place.database,
            "QUEUE_URL": place.queue,
            "RECORD": str(place.record),
            "APP_DIR": str(place.folder / "app"),
        }


def broker_of(place: Place) -> Any:
    """The queue in a place's database."""
    return DatabaseBroker(connect(place.database), lambda: None)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process with all that it has started, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout:
        process.stdout.close()


def wait_until(done: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Look again and again until something is true."""
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience:.0f} s")
        time.sleep(0.01)


def lines(record: Path) -> list[list[str]]:
    """The words of all whole lines that jobs have written."""
    text = record.read_text() if record.exists() else ""
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], asked: str) -> None:
    """Print a table, and what was asked for below it."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}")
    for row in (header, *rows):
        first, *others = (f"{cell:{'>' if number else '<'}{widths[number]}}" for number, cell in enumerate(row))
        print("  ".join([first, *others]))
    print(f"asked: {asked}", flush=True)
