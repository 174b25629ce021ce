"""Connections to PostgreSQL that go silent and stay open, as behind a firewall that forgets them; new ones work."""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, make_url, select, text
from sqlalchemy.exc import OperationalError

from app.jobs import remove_expired
from config import ROOT, AppDir
from database import connect, sessions
from database.broker import DatabaseBroker, QueueMessage
from database.engine import single_statements
from tests.infrastructure.database.conftest import upgrade
from tests.infrastructure.servers import HOST, free_port

LOG = "PostgreSQL has not answered for 2 s; the connection is given up"
LIMITS: dict[str, Any] = {"timeout": 1, "statement_timeout": 1}


class Proxy:
    """Passes bytes on, until it is told to swallow those of the connections that there are."""

    def __init__(self, port: int) -> None:
        self.target = (HOST, port)
        self.passing: set[socket.socket] = set()
        self.is_down = False
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(self.target)
                self.passing |= set() if self.is_down else {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self.pass_on, args=ends, daemon=True).start()

    def pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65536):
                if source in self.passing:
                    target.sendall(data)

    def fall_silent(self) -> None:
        self.passing.clear()


@pytest.fixture(autouse=True)
def no_other_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the handlers of services that other tests have made, whose folders are gone."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    proxy = Proxy(make_url(postgres_url).port or 0)
    yield proxy
    proxy.listener.close()


@pytest.fixture
def url(postgres_url: str, proxy: Proxy) -> str:
    """The database, through the proxy."""
    return make_url(postgres_url).set(port=proxy.port).render_as_string(hide_password=False)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url, **LIMITS)
    yield engine
    engine.dispose()


def test_a_session_gets_a_connection_that_answers(
    engine: Engine, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with sessions(engine)() as first, sessions(engine)() as second:
        assert first.scalar(select(1)) == second.scalar(select(1)) == 1
    proxy.fall_silent()
    with sessions(engine)() as session:
        assert session.scalar(select(1)) == 1
    assert caplog.messages == [LOG]


@pytest.mark.parametrize("kind", [lambda engine: engine, single_statements])
def test_a_statement_that_is_not_answered_is_an_error_and_the_next_one_works(
    engine: Engine, proxy: Proxy, kind: Callable[[Engine], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = kind(engine)
    with engine.connect() as connection:
        connection.execute(select(1))
        proxy.fall_silent()
        with pytest.raises(OperationalError, match="wait timeout expired"):
            connection.execute(select(1))
        assert caplog.messages == [LOG]
        connection.rollback()
        assert connection.scalar(select(1)) == 1
    engine.dispose()


def test_a_server_that_takes_too_long_for_a_statement_says_so(engine: Engine) -> None:
    for kind in (engine, single_statements(engine)):
        with kind.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
            connection.execute(text("SELECT pg_sleep(30)"))
        kind.dispose()


def test_a_server_that_does_not_answer_is_not_waited_for_long(engine: Engine, proxy: Proxy) -> None:
    proxy.is_down = True
    with pytest.raises(OperationalError, match="connection timeout expired"):
        engine.connect()


SCHEDULER = """
import contextlib, pathlib, sys, threading
from app import create_app
from app.services import transaction
from database import schedule

app = create_app()

@contextlib.contextmanager
def told():
    with transaction(app) as session:
        yield session
    pathlib.Path(sys.argv[1]).touch()

schedule.LONGEST_PAUSE = 0.2
schedule.run(told, threading.Event(), [])
"""


@dataclass
class Service:
    """A service behind the proxy, whose processes end with the test, and the test's own way to its database."""

    url: str
    engine: Engine
    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> None:
        environment = {"APP_ENV": "testing", "APP_DIR": str(self.folder), "SECRET_KEY": secrets.token_urlsafe(32)}
        environment |= {"DATABASE_URL": self.url, "PORT": str(self.port)}
        environment |= {f"APP_DATABASE__{name.upper()}": str(value) for name, value in LIMITS.items()}
        environment |= {"PATH": os.environ["PATH"], "APP_WEB__WORKERS": "1"}
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)

    def stop(self) -> None:
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def shows_pages(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{self.port}/", timeout=30) as answer:
            return bool(answer.status == 200)
        return False

    def has_no_jobs(self) -> bool:
        with sessions(self.engine)() as session:
            return session.scalar(select(func.count()).select_from(QueueMessage)) == 0

    def schedules(self) -> bool:
        """Whether the scheduler has looked at the database since this was asked last."""
        looked = (self.folder / "looked").exists()
        (self.folder / "looked").unlink(missing_ok=True)
        return looked


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


@pytest.fixture
def service(url: str, postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    engine = connect(postgres_url)
    upgrade(engine)
    folder = AppDir(tmp_path / "app")
    folder.make()
    service = Service(url, engine, folder.path, free_port())
    yield service
    service.stop()
    engine.dispose()


@pytest.mark.slow
def test_web_workers_and_scheduler_notice_log_it_and_go_on(service: Service, proxy: Proxy) -> None:
    broker = DatabaseBroker(service.engine, lambda: None)
    message = remove_expired.message("2026-01-01T00:00:00+00:00")
    service.start("web.py")
    service.start("queues.py")
    service.start("-c", SCHEDULER, str(service.folder / "looked"))
    for _ in range(2):
        broker.enqueue(message)
        for goes_on in (service.shows_pages, service.has_no_jobs, service.schedules):
            eventually(goes_on)
        proxy.fall_silent()
        service.schedules()
    assert (service.folder / "log").read_text().count(LOG) >= 3
    broker.direct.dispose()
