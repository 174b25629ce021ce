"""What leaves for Sentry and OpenTelemetry, as their receivers see it."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import dramatiq
import pytest
import sentry_sdk
import structlog
import svcs
from flask import Flask, request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.accounts import User
from app.extensions import csrf
from app.ops.jobs import remove_expired
from app.services import transaction
from config import ConfigError, Settings, project_version
from tests.conftest import run_jobs
from tests.conftest import free_port

MakeApp = Callable[..., Flask]
JSON_LINES = {"APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "json"}
SECRETS = ("hunter2", "hunter3", "hunter4", "ada@example.org", "my-cookie")


class Receiver(ThreadingHTTPServer):
    """Takes what is sent to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, bytes]] = []

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.received]

    def bodies_at(self, path: str) -> list[bytes]:
        return [body for where, body in self.received if where == path]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def events(self) -> list[dict[str, Any]]:
        """What Sentry got: in each envelope, a line of JSON before each item."""
        found = []
        for body in self.bodies_at("/api/1/envelope/"):
            lines = [json.loads(line) for line in body.splitlines() if line]
            found += [item for head, item in zip(lines[1::2], lines[2::2], strict=True) if head["type"] == "event"]
        return found

    def spans(self) -> dict[str, Any]:
        """What OpenTelemetry got, by name."""
        found = {}
        for body in self.bodies_at("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found.update({span.name: span for span in scope.spans})
        return found


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def add_views(app: Flask) -> None:
    """A page that fails, and one that sends a job that fails."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @dramatiq.actor(max_retries=0)
    def break_job(password: str) -> None:
        svcs.flask.get(Session).execute(text("SELECT :value"), {"value": SECRETS[2]})
        raise ConnectionError(f"amqp://ada:{password}@mq/")

    @app.post("/fail")
    @csrf.exempt
    def fail() -> str:
        password = request.form["password"]
        svcs.flask.get(Session).execute(text("SELECT :value"), {"value": password})
        raise ConnectionError(f"postgresql://ada:{password}@db/?token={SECRETS[2]}")

    @app.post("/send")
    @csrf.exempt
    def send() -> str:
        break_job.send(SECRETS[1])
        return "sent"


@pytest.fixture
def break_job() -> Iterator[None]:
    yield
    dramatiq.get_broker().actors.pop("break_job", None)


def use(app: Flask) -> list[str]:
    """Send both requests and run the job; returns the ids of the requests."""
    client = app.test_client()
    client.set_cookie("other", "my-cookie")
    headers = {"Authorization": "Bearer hunter4"}
    form = {"password": "hunter2", "email": "ada@example.org"}
    answers = [client.post(f"{path}?token=hunter3", data=form, headers=headers) for path in ("/fail", "/send")]
    assert [answer.status_code for answer in answers] == [500, 200]
    run_jobs()
    return [answer.headers["X-Request-ID"] for answer in answers]


def test_sentry_hears_of_errors_and_of_nothing_personal(
    make_app: MakeApp, settings: Settings, receiver: Receiver, break_job: None
) -> None:
    app = make_app(SENTRY_DSN=f"http://key@{receiver.address}/1")
    add_views(app)
    of_request, of_job = use(app)
    sentry_sdk.flush(5)
    first, second = receiver.events()
    for event in (first, second):
        assert event["release"] == f"{settings.app.slug}@{project_version()}"
        assert event["environment"] == "testing"
        [error] = event["exception"]["values"]
        assert error["type"] == "ConnectionError"
        assert error["stacktrace"]["frames"]
        assert not any("vars" in frame for frame in error["stacktrace"]["frames"])
    assert first["exception"]["values"][0]["value"] == "postgresql://ada:***@db/?token=***"
    assert first["request"] == {"method": "POST", "url": "http://localhost/fail"}
    assert first["transaction"] == "/fail"
    assert first["tags"]["request_id"] == of_request
    assert second["exception"]["values"][0]["value"] == "amqp://ada:***@mq/"
    assert (second["tags"]["request_id"], second["tags"]["job"]) == (of_job, "break_job")
    assert not any(secret.encode() in body for body in receiver.bodies for secret in SECRETS)


def test_sentry_hears_nothing_of_an_app_that_does_not_name_it(make_app: MakeApp, receiver: Receiver) -> None:
    first = make_app(SENTRY_DSN=f"http://key@{receiver.address}/1")
    svcs.flask.close_registry(first)
    make_app()
    structlog.stdlib.get_logger("app").error("broken")
    assert not sentry_sdk.is_initialized()
    assert receiver.bodies == []


def test_a_trace_goes_from_a_request_to_its_job_and_the_sql_of_both(
    make_app: MakeApp,
    settings: Settings,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    break_job: None,
) -> None:
    app = make_app(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.address}", **JSON_LINES)
    add_views(app)
    use(app)
    app.test_client().get("/livez")
    with app.app_context():
        svcs.flask.get(TracerProvider).force_flush()
    spans = receiver.spans()
    sent, job, failed = spans["POST /send"], spans["job break_job"], spans["POST /fail"]
    assert job.trace_id == sent.trace_id != failed.trace_id
    assert job.parent_span_id == sent.span_id
    statements = [span for span in spans.values() if "SELECT ?" in str(span.attributes)]
    assert {span.trace_id for span in statements} <= {job.trace_id, failed.trace_id}
    assert statements
    assert "ConnectionError" in str(failed.events)
    assert not [name for name in spans if "livez" in name]
    # A worker's own questions to its queue begin no trace.
    assert {span.trace_id for span in spans.values()} == {sent.trace_id, failed.trace_id}
    assert all(settings.app.slug.encode() in body for body in receiver.bodies)
    assert not any(secret.encode() in body for body in receiver.bodies for secret in SECRETS)

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    by_event = {line["event"]: line.get("trace_id") for line in lines if line.get("route") != "/fail"}
    assert by_event["job started"] == by_event["job failed"] == by_event["request"] == sent.trace_id.hex()


def test_an_app_that_ends_leaves_no_traces_to_others(make_app: MakeApp, receiver: Receiver) -> None:
    traced = make_app(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.address}")
    svcs.flask.close_registry(traced)
    receiver.received.clear()
    plain = make_app()
    assert plain.test_client().get("/login").status_code == 200
    again = make_app(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.address}")
    again.test_client().get("/login")
    with again.app_context():
        svcs.flask.get(TracerProvider).force_flush()
    assert "GET /login" in receiver.spans()


def test_the_thread_that_sends_traces_takes_no_signal_from_the_main_one(make_app: MakeApp, receiver: Receiver) -> None:
    before = set(threading.enumerate())
    make_app(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{receiver.address}")
    [thread] = set(threading.enumerate()) - before
    assert signal.SIGTERM in blocked(thread)
    assert signal.SIGTERM not in blocked(threading.main_thread())


def blocked(thread: threading.Thread) -> set[int]:
    """The signals that a thread does not take, by proc(5)."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    [mask] = re.findall(r"^SigBlk:\s+(\w+)$", status, re.MULTILINE)
    return {number for number in signal.valid_signals() if int(mask, 16) >> (number - 1) & 1}


@pytest.mark.parametrize(
    ("variable", "address", "package", "extra"),
    [
        ("SENTRY_DSN", "http://hunter2@127.0.0.1/1", "sentry_sdk", "sentry"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1", "opentelemetry", "otel"),
    ],
)
def test_a_package_that_is_missing_is_one_line(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, variable: str, address: str, package: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("app.telemetry.", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as raised:
        make_app(**{variable: address})
    [line] = str(raised.value).splitlines()
    assert line.startswith("config/telemetry.yaml: telemetry.")
    assert line.endswith(f"{package} is not installed; run `make lock EXTRAS={extra} && make setup`")
    assert "hunter2" not in line


@pytest.mark.parametrize("variable", ["SENTRY_DSN", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_an_address_that_is_none_is_one_line(make_app: MakeApp, variable: str) -> None:
    with pytest.raises(ConfigError, match=r"^config/telemetry.yaml: telemetry\.\w+: found .* expected a [^\n]*$"):
        make_app(**{variable: "nonsense"})


def test_without_the_settings_nothing_is_imported(settings: Settings) -> None:
    check = "import sys, app; app.create_app(); print([n for n in sys.modules if n in ('sentry_sdk', 'opentelemetry')])"
    environment = {"APP_ENV": "testing", "APP_DIR": str(settings.app_dir.path), "PATH": ""}
    command = [sys.executable, "-c", check]
    result = subprocess.run(command, cwd=settings.root, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.slow
def test_processes_that_were_forked_send_as_well(
    settings: Settings, make_app: MakeApp, receiver: Receiver, tmp_path: Path
) -> None:
    with transaction(make_app()) as session:
        remove_expired.send("slot")
        session.execute(text("DROP TABLE rate_limit"))
        session.execute(text(f"DROP TABLE {User.__tablename__}"))
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "APP_ENV": "testing",
        "APP_DIR": str(settings.app_dir.path),
        "PORT": str(port),
        # A worker of gunicorn that is told to stop in the moment of its fork does not hear it.
        "APP_WEB__GRACEFUL_TIMEOUT": "5",
        "SENTRY_DSN": f"http://key@{receiver.address}/1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}",
        "dramatiq_worker_timeout": "50",
    }

    def answer() -> int:
        try:
            with urlopen(f"http://127.0.0.1:{port}/profile/ada", timeout=5) as response:
                return int(response.status)
        except HTTPError as error:
            return error.code
        except OSError:
            return 0

    def heard() -> bool:
        return {event["tags"].get("job", "") for event in receiver.events()} == {"", "remove_expired"}

    with (tmp_path / "log").open("wb") as log:
        running = [
            subprocess.Popen([sys.executable, *command], cwd=settings.root, env=environment, stdout=log, stderr=log)
            for command in (("-m", "gunicorn", "--preload", "web:app"), ("queues.py",))
        ]
    try:
        wait_for(answer)
        assert answer() == 500
        wait_for(heard)
    finally:
        for process in running:
            process.terminate()
    assert [process.wait(30) for process in running] == [0, 0], (tmp_path / "log").read_text()
    assert {"GET /profile/<username>", "job remove_expired"} <= receiver.spans().keys()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
