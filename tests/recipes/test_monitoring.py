"""Errors arrive at Sentry, and traces at a collector, which may hang or be away."""

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from dotenv import dotenv_values

from config import ROOT, Settings

PATIENCE = 60
BIN = Path(sys.executable).parent


class Receiver(ThreadingHTTPServer):
    """What listens at Sentry, and what collects traces; unless it `answers`, it hangs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.got: list[tuple[str, bytes]] = []
        self.answers = Event()
        self.answers.set()

    def has(self, path: str, *parts: bytes) -> Callable[[], Any]:
        """Whether something was sent to the path that holds all of these parts."""
        return lambda: any(where == path and all(part in body for part in parts) for where, body in self.got)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, gzip.decompress(body) if self.headers["Content-Encoding"] else body))
        self.server.answers.wait(PATIENCE)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        Thread(target=receiver.serve_forever).start()
        yield receiver
        receiver.answers.set()
        receiver.shutdown()


@pytest.fixture
def environment(settings: Settings, migrated_database: Path, tmp_path: Path) -> dict[str, str]:
    """That of an installation of the test's own."""
    settings.app_dir.make()
    shutil.copyfile(migrated_database, settings.app_dir.database)
    folder = str(settings.app_dir.path)
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "APP_ENV": "testing", "APP_DIR": folder}


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Service:
    """The web process, started as the page says."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        traces = {name: value or "" for name, value in dotenv_values(ROOT / "traces.env").items()}
        # Traces are sent every 5 seconds by default.
        variables = {"OTEL_BSP_SCHEDULE_DELAY": "200", "PORT": str(self.port), **traces, **environment}
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [BIN / "opentelemetry-instrument", sys.executable, "web.py"],
                cwd=ROOT,
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def get(self, path: str) -> int:
        """The status of a page; 0 as long as nobody answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as response:
                return int(response.status)
        except HTTPError as error:
            return error.code
        except OSError:
            return 0

    def press_ctrl_c(self) -> None:
        """All of it has to end by itself, and none because it was killed."""
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0
        assert "SIGKILL" not in self.log.read_text()


@contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator[Service]:
    service = Service(environment, log)
    try:
        wait_for(lambda: service.get("/livez") == 200 or service.process.poll() is not None)
        yield service
    except BaseException as error:
        error.add_note(log.read_text())
        raise
    finally:
        if service.process.poll() is None:
            os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()


def test_traces_arrive_and_a_collector_that_hangs_does_not_hold_up_the_end(
    receiver: Receiver, environment: dict[str, str], tmp_path: Path
) -> None:
    with running({**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}"}, tmp_path / "log") as it:
        assert it.get("/profile/nobody") == 404
        wait_for(receiver.has("/v1/traces", b"my_service", b"GET /profile/<username>", b"user_account.username = ?"))
        [trace] = set(re.findall(r"otelTraceID\W+(\w{32})", it.log.read_text()))
        assert receiver.has("/v1/traces", bytes.fromhex(trace))()

        receiver.answers.clear()
        assert it.get("/login") == 200
        wait_for(receiver.has("/v1/traces", b"GET /login"))
        it.press_ctrl_c()


def test_errors_arrive_at_sentry_and_a_collector_that_is_away_holds_up_nothing(
    receiver: Receiver, environment: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    dsn = {"SENTRY_DSN": f"http://key@{receiver.address}/1"}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}"}
        with running({**environment, **dsn, **away}, tmp_path / "log") as it:
            assert it.get("/login") == 200
            with closing(sqlite3.connect(settings.app_dir.database)) as database:
                database.execute("ALTER TABLE user_account RENAME TO lost")
            assert it.get("/profile/nobody") >= 500
            wait_for(receiver.has("/api/1/envelope/", b"no such table: user_account", b'"request_id"'))
            it.press_ctrl_c()


def test_the_page_sends_an_error_to_see_one_arrive(
    receiver: Receiver, environment: dict[str, str], settings: Settings
) -> None:
    [line] = re.findall(r"\.venv/bin/python (-c .*)", (ROOT / "docs/recipes/monitoring.md").read_text())
    dsn = {"SENTRY_DSN": f"http://key@{receiver.address}/1"}
    subprocess.run([sys.executable, *shlex.split(line)], cwd=ROOT, env={**environment, **dsn}, check=True)
    [body] = [body for where, body in receiver.got if b"a test for Sentry" in body]
    event = json.loads(body.splitlines()[2])
    assert event["environment"] == "testing"
    assert event["release"].startswith(f"{settings.app.slug}@")
