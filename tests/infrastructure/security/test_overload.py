"""What is made to happen again and again costs little, and hides nothing."""

import json
import logging
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.services import check_services
from config import Settings
from tests.infrastructure.processes.test_processes import environment, running, wait_for

__all__ = ["environment"]
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}
logger = logging.getLogger("library")


def test_an_error_that_comes_again_and_again_is_counted(app: Flask, settings: Settings) -> None:
    def fail(kind: type[Exception]) -> None:
        try:
            raise kind
        except kind:
            logger.exception("failed for %s", kind)

    fail(KeyError)
    for _ in range(150):
        logger.error("broken: %s", "a part")
    fail(KeyError)
    fail(ValueError)
    try:
        int("x")
    except ValueError:
        logger.exception("failed for %s", "another reason")
    found = [json.loads(line) for line in settings.app_dir.error_log.read_text().splitlines()]
    assert [(line["event"], line.get("times", 1)) for line in found] == [
        ("failed for <class 'KeyError'>", 1),
        ("broken: a part", 1),
        ("broken: a part", 10),
        ("broken: a part", 100),
        ("failed for <class 'ValueError'>", 1),
        ("failed for another reason", 1),
    ]


def test_others_make_no_work_by_asking_whether_it_is_ready(
    app: Flask, client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def check() -> dict[str, Exception | None]:
        asked.append(1)
        return check_services()

    monkeypatch.setattr("app.ops.views.check_services", check)
    client.get("/readyz")
    before = sorted((path, path.stat().st_mtime_ns) for path in settings.app_dir.path.rglob("*"))
    inside = client.get("/readyz")
    for _ in range(20):
        outside = client.get("/readyz", environ_overrides=ELSEWHERE)
        assert (outside.status_code, outside.json) == (200, {"status": "ok"})
    assert len(asked) <= 3
    assert sorted((path, path.stat().st_mtime_ns) for path in settings.app_dir.path.rglob("*")) == before
    assert set(inside.json) == {"status", "checks", "release"}
    assert client.get("/version", environ_overrides=ELSEWHERE).status_code == 404


@pytest.mark.parametrize("name", ["one thread", "all threads"])
def test_bodies_that_do_not_come_end_and_are_seen(environment: dict[str, str], tmp_path: Path, name: str) -> None:
    more = {"APP_WEB__TIMEOUT": "1", "APP_WEB__WORKERS": "1", "APP_WEB__THREADS": "2"}
    with running([sys.executable, "web.py"], {**environment, **more}, tmp_path) as service:
        wait_for(lambda: service.get("/livez"))
        stalled = []
        for _ in range(1 if name == "one thread" else 2):
            connection = socket.create_connection(("127.0.0.1", int(service.port)), timeout=20)
            connection.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n")
            connection.sendall(b"Content-Type: application/x-www-form-urlencoded\r\n\r\nusername=")
            stalled.append(connection)
        for connection in stalled:
            assert re.match(rb"HTTP/1.1 4\d\d ", connection.recv(100))
            connection.close()
        assert service.get("/livez")
        assert "a request runs longer than web.timeout, 1 s" in service.printed
        assert f"http_requests_overdue_total {len(stalled)}.0" in service.get("/metrics")
