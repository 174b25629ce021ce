"""What leaves for Sentry, as its receiver sees it."""

import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import dramatiq
import pytest
import sentry_sdk
from flask import Flask

from config import ConfigError
from tests.conftest import run_jobs

MakeApp = Callable[..., Flask]
# Reports hold the lines of code around an error, in which it must not stand.
SECRET = "hunter2"


class Receiver(BaseHTTPRequestHandler):
    """Takes what Sentry's SDK sends."""

    received: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def dsn() -> Iterator[str]:
    """The address of a receiver."""
    Receiver.received.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://key@127.0.0.1:{server.server_address[1]}/1"
    sentry_sdk.get_client().close(2)
    sentry_sdk.get_global_scope().set_client(None)
    server.shutdown()
    server.server_close()
    thread.join()


def events() -> list[dict[str, Any]]:
    """What was sent: in each envelope, a line of JSON before each item."""
    sentry_sdk.flush(10)
    found = []
    for body in Receiver.received:
        lines = [json.loads(line) for line in body.splitlines() if line]
        found += [item for head, item in zip(lines[1::2], lines[2::2], strict=True) if head.get("type") == "event"]
    return found


def test_an_error_of_a_request_is_sent_without_secrets(make_app: MakeApp, dsn: str) -> None:
    app = make_app(SENTRY_DSN=dsn)
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/broken")
    def broken() -> str:
        password = f"my {SECRET}"
        raise ConnectionError(f"postgresql://ada:{SECRET}@db/app {len(password)}")

    client = app.test_client()
    client.set_cookie("session", SECRET)
    address = f"/broken?token={SECRET}&signature={SECRET}&page=7"
    number = client.get(address, headers={"Authorization": f"Bearer {SECRET}"}).headers["X-Request-ID"]
    [event] = events()
    assert event["exception"]["values"][-1]["type"] == "ConnectionError"
    assert event["tags"]["request_id"] == number
    assert event["environment"] == "testing"
    assert "page=7" in event["request"]["query_string"]
    assert SECRET not in json.dumps(event)


def test_an_error_of_a_job_is_sent_with_its_name_and_without_its_arguments(make_app: MakeApp, dsn: str) -> None:
    make_app(SENTRY_DSN=dsn)

    @dramatiq.actor(max_retries=0)
    def break_down(password: str) -> None:
        raise ZeroDivisionError

    try:
        break_down.send(SECRET)
        assert run_jobs() == 1
    finally:
        del dramatiq.get_broker().actors["break_down"]
    sent = events()
    assert {event["exception"]["values"][-1]["type"] for event in sent} == {"ZeroDivisionError"}
    assert {event["tags"]["job"] for event in sent} == {"break_down"}
    assert SECRET not in json.dumps(sent)


def test_without_an_address_nothing_is_imported_and_a_wrong_one_is_a_line(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"config/telemetry.yaml: telemetry.sentry_dsn: found '\*\*\*': "):
        make_app(SENTRY_DSN="sentry.example.org")
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    with pytest.raises(ConfigError, match="run `make add PACKAGE=sentry-sdk && make setup`"):
        make_app(SENTRY_DSN="http://key@127.0.0.1:1/1")
    make_app()
