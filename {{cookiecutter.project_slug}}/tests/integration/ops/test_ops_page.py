"""The page of administrators: who sees it, and what it shows."""

import html
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import svcs
from dramatiq.errors import BrokerConnectionError
from flask import Flask
from sqlalchemy import Engine, event
from werkzeug.test import TestResponse

from app.ops import error_log
from app.ops.sizes import Sizes, measure
from app.services import transaction
from config import Settings
from database import queue_admin, utc_now
from database.broker import TableBroker
from database.migrations import heads
from database.queue_statistics import QueueMinute
from database.schedule import SCHEDULES, ScheduleSlot
from storage import Storage
from tests.conftest import without_seconds

ACTIONS = ["/ops/jobs/retry", "/ops/jobs/1234/retry", "/ops/jobs/1234/cancel", "/ops/schedules/remove_expired/run"]


def put(broker: TableBroker, *, queue: str = "default", job: str = "job", delay: int | None = None) -> str:
    message = dramatiq.Message[None](queue_name=queue, actor_name=job, args=(), kwargs={}, options={})
    return broker.enqueue(message, delay=delay).message_id


def fail(broker: TableBroker, queue: str = "default", error: str = "Traceback:\nValueError: <b>bad</b>\n") -> str:
    """Send a message, before which the queue is empty, and let it fail."""
    sent = put(broker, queue=queue)
    for message in broker.table.claim(queue, 100)[0]:
        if message.message_id == sent:
            broker.table.set_aside(message, error)
        else:
            broker.table.give_back([message.row_id])
    return sent


def text_of(response: TestResponse) -> str:
    """What people read, in one line."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", response.text)).split())


def test_who_is_not_logged_in_is_asked_to_and_comes_back(client: Any, admin: Any, app: Flask) -> None:
    other = app.test_client()
    assert other.get("/ops").location == "/login"
    assert other.head("/ops").location == "/login"
    assert other.get("/ops", headers={"Accept": "application/json"}).status_code == 401
    other.get("/ops")
    response: TestResponse = other.log_in("ada")  # type: ignore[attr-defined]
    assert response.location == "/ops"


def test_for_a_plain_user_there_is_no_such_page(logged_in: Any) -> None:
    assert logged_in.get("/ops").status_code == 404
    assert logged_in.head("/ops").status_code == 404
    assert [logged_in.submit(path, page="/logout").status_code for path in ACTIONS] == [404] * len(ACTIONS)
    assert "/ops" not in logged_in.get("/").text


def test_without_login_no_action_does_anything(client: Any, broker: TableBroker) -> None:
    sent = put(broker)
    assert client.submit(f"/ops/jobs/{sent}/cancel", page="/login").location == "/login"
    assert queue_admin.find(broker, sent)


def test_without_its_token_no_action_does_anything(admin: Any, broker: TableBroker) -> None:
    sent = put(broker)
    assert [admin.post(path).status_code for path in [*ACTIONS, f"/ops/jobs/{sent}/cancel"]] == [400] * 5
    assert queue_admin.find(broker, sent)


def test_actions_are_no_links(admin: Any) -> None:
    assert [admin.get(path).status_code for path in ACTIONS] == [405] * len(ACTIONS)


def test_administrators_have_a_link_to_it(admin: Any) -> None:
    assert 'href="/ops"' in admin.get("/").text


def test_it_keeps_to_what_all_pages_keep_to(
    admin: Any, broker: TableBroker, page_problems: Callable[[TestResponse], list[str]]
) -> None:
    for queue in ("default", "other"):
        put(broker, queue=queue)
        fail(broker, queue)
        put(broker, queue=queue, delay=1000)
    response = admin.get("/ops")
    assert response.status_code == 200
    assert page_problems(response) == []


def test_it_tells_the_release_and_how_each_service_is(admin: Any, app: Flask, settings: Settings) -> None:
    text = text_of(admin.get("/ops"))
    version = app.test_client().get("/version").json["version"]  # type: ignore[index]
    assert f"version {version} database {', '.join(heads())} environment" in text
    assert "environment testing started" in text
    assert "database ok migrations ok queue ok storage ok" in text


def test_a_service_that_fails_is_named_and_breaks_nothing(
    admin: Any, app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_service: object) -> None:
        raise ConnectionError("postgresql://user:password@host")

    with app.app_context():
        svcs.flask.register_value(app, Storage, svcs.flask.get(Storage), ping=fail)
    capsys.readouterr()
    text = text_of(admin.get("/ops"))
    assert "storage failed: ConnectionError" in text
    # Else an open page would fill the log of errors, which it shows.
    assert "not ready" not in capsys.readouterr().err


def test_pending_migrations_are_told(admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("database.migrations.heads", lambda: frozenset({"9999_next"}))
    text = text_of(admin.get("/ops"))
    assert "The database is not at this version's revision. Run: python main.py db upgrade" in text
    assert ", migrations are pending" in text


def test_queues_are_counted_and_drawn(admin: Any, app: Flask, broker: TableBroker) -> None:
    fail(broker)
    put(broker)
    put(broker, delay=3_600_000)
    minute = utc_now().replace(second=0, microsecond=0) - timedelta(minutes=5)
    with transaction(app) as session:
        session.add(QueueMinute(minute=minute, queue="default", waiting=7, done=30, failed=2))
        session.add(QueueMinute(minute=minute, queue="gone", waiting=None, done=1))
    text = text_of(admin.get("/ops"))
    assert "default 1 waiting 1 delayed 0 running 1 failed oldest waits since now" in without_seconds(text)
    assert f"Latest 7, most 7 at {minute:%H:%M}. Not known for 59 of 60 minutes." in text
    assert "30 done, 2 failed in this hour." in text
    assert "gone Waiting Not known: no scheduler has run in this hour." in text


def test_jobs_are_listed_by_state_with_what_can_be_done_to_them(admin: Any, broker: TableBroker) -> None:
    failed = fail(broker)
    running = put(broker)
    broker.table.claim("default", 1)
    waiting = put(broker)
    delayed = put(broker, delay=3_600_000)
    page = admin.get("/ops").text
    assert [page.count(sent[:8]) >= 1 for sent in (failed, running, waiting, delayed)] == [True] * 4
    assert sorted(re.findall(r'action="/ops/jobs/([^"]+)"', page)) == sorted(
        ["retry", f"{failed}/retry", f"{waiting}/cancel", f"{delayed}/cancel"]
    )
    # What others have written is text.
    assert "ValueError: &lt;b&gt;bad&lt;/b&gt;" in page
    assert broker.table.owner in page


def test_long_lists_are_cut_and_say_so(admin: Any, broker: TableBroker) -> None:
    for _ in range(21):
        put(broker)
    response = admin.get("/ops")
    assert "Waiting the first 20 of 21" in text_of(response)
    assert response.text.count('/cancel"') == 20


def test_it_asks_no_more_of_the_database_for_more_jobs_and_schedules(
    admin: Any, app: Flask, broker: TableBroker
) -> None:
    with app.app_context():
        engine = svcs.flask.get(Engine)
    statements: list[str] = []

    def count() -> int:
        statements.clear()
        admin.get("/ops")
        return len(statements)

    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    put(broker)
    before = count()
    for name in SCHEDULES:
        with transaction(app) as session:
            session.add(ScheduleSlot(schedule=name, slot=utc_now(), outcome="done"))
    for _ in range(10):
        put(broker)
    assert count() == before


def test_schedules_tell_when_and_how(make_app: Callable[..., Flask], admin: Any, app: Flask) -> None:
    with transaction(app) as session:
        for hours, outcome in ((30, "failed"), (3, "done")):
            slot = utc_now() - timedelta(hours=hours, minutes=1)
            session.add(ScheduleSlot(schedule="remove_expired", slot=slot, outcome=outcome))
    assert re.search(
        r"remove_expired 30 3 \* \* \* UTC, next in \d+ (h|min|s) , last 3 h ago : done Run now",
        text_of(admin.get("/ops")),
    )
    other = make_app(APP_SCHEDULE__DISABLED='["remove_expired"]').test_client()
    other.log_in("ada")  # type: ignore[attr-defined]
    assert "remove_expired 30 3 * * * UTC, disabled, last 3 h ago : done Run now" in text_of(other.get("/ops"))


def write_errors(settings: Settings, *lines: str) -> Path:
    path = settings.app_dir.error_log
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def error(event: str, **fields: object) -> str:
    time = (utc_now() - timedelta(minutes=3, seconds=1)).isoformat()
    return json.dumps({"timestamp": time, "level": "error", "logger": "app.x", "event": event, **fields})


def test_recent_errors_are_shown_latest_first_as_text(admin: Any, settings: Settings) -> None:
    assert "Recent errors The last 20 of this machine" in text_of(admin.get("/ops"))
    write_errors(
        settings,
        error("the first"),
        error("<script>alert(1)</script>", request_id="abc-1", exception="Traceback:\n  <i>\nValueError"),
        error("odd", exception=[{"exc_type": "KeyError"}]),
    )
    page = admin.get("/ops").text
    assert page.index("odd") < page.index("&lt;script&gt;alert(1)") < page.index("the first")
    assert "<script>alert" not in page
    assert "Traceback:\n  &lt;i&gt;\nValueError" in page
    assert "KeyError" in page
    assert "3 min ago , error, app.x, request abc-1" in text_of(admin.get("/ops"))


def test_an_error_that_the_service_logs_is_shown_with_its_way_there(admin: Any) -> None:
    try:
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError as cause:
            raise LookupError("nothing <here>") from cause
    except LookupError:
        logging.getLogger("app").exception("it broke")
    page = admin.get("/ops").text
    assert "test_ops_page.py" in page
    assert "ZeroDivisionError: by zero" in page
    assert page.index("ZeroDivisionError: ") < page.index("LookupError: nothing &lt;here&gt;")


def test_lines_that_are_no_errors_are_left_out(admin: Any, settings: Settings) -> None:
    path = write_errors(settings, "not json", "[]", '{"event": 7, "timestamp": 5}', error("whole"), '{"event": "cut')
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n" + b'{"event": "without an end"}')
    assert [entry.event for entry in error_log.recent_errors(path, 20)] == ["without an end", "whole", "7"]
    assert admin.get("/ops").status_code == 200


def test_only_the_end_of_a_long_log_is_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_errors(settings, *(error(f"error {number}") for number in range(100)))
    assert [entry.event for entry in error_log.recent_errors(path, 2)] == ["error 99", "error 98"]
    whole = {entry.event: entry.position for entry in error_log.recent_errors(path, 100)}
    monkeypatch.setattr(error_log, "TAIL", 1000)
    tail = error_log.recent_errors(path, 100)
    assert 1 < len(tail) < 10
    assert {entry.event: entry.position for entry in tail}.items() <= whole.items()


def test_a_log_that_cannot_be_read_is_named(admin: Any, settings: Settings) -> None:
    settings.app_dir.error_log.mkdir(parents=True)
    assert f"{settings.app_dir.error_log} cannot be read: Is a directory" in text_of(admin.get("/ops"))


def test_folders_are_measured_and_not_again_for_a_while(app: Flask, settings: Settings) -> None:
    (settings.app_dir.path / "media").mkdir()
    (settings.app_dir.path / "media" / "picture").write_bytes(b"x" * 2000)
    (settings.app_dir.path / "media" / "link").symlink_to("/usr")
    with app.app_context():
        sizes = svcs.flask.get(Sizes)
    sizes.get()
    assert sizes.thread
    sizes.thread.join()
    measured = sizes.get()
    assert measured
    found = {folder.name: folder for folder in measured.folders}
    for name in ("media/", "disk media"):
        assert (found[name].files, found[name].size, found[name].whole) == (1, 2000, True)
    assert found["app folder"].size >= found["media/"].size + found["data/"].size
    assert found["app folder"].free > 0
    (settings.app_dir.path / "media" / "picture").unlink()
    assert sizes.get() is measured


def test_sizes_are_on_the_page(admin: Any, app: Flask) -> None:
    with app.app_context():
        sizes = svcs.flask.get(Sizes)
    sizes.get()
    assert sizes.thread
    sizes.thread.join()
    assert re.search(r"Free app folder \d+ [\d.]+ kB [\d.]+ .B", text_of(admin.get("/ops")))


def test_what_cannot_be_read_is_told_and_what_is_gone_meanwhile_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def refuse(path: str) -> os.stat_result:
        if path.endswith("/gone"):
            raise FileNotFoundError(path)
        if path.endswith("/secret"):
            raise PermissionError(path)
        return lstat(path)

    for name in ("file", "gone"):
        (tmp_path / name).write_bytes(b"xyz")
    monkeypatch.setattr(os, "lstat", refuse)
    assert measure("folder", tmp_path)[:3] == ("folder", 1, 3)
    assert measure("folder", tmp_path).whole
    (tmp_path / "secret").touch()
    assert measure("folder", tmp_path)[:3] == ("folder", 1, 3)
    assert not measure("folder", tmp_path).whole


def test_a_folder_that_takes_long_keeps_no_page_waiting(
    admin: Any, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("app.ops.sizes.PATIENCE", 0)
    monkeypatch.setattr(Sizes, "_measure", lambda self: go_on.wait(60))
    assert "Disk space It is being measured." in text_of(admin.get("/ops"))
    go_on.set()


def test_a_queue_server_that_is_down_is_told_and_the_rest_is_there(
    admin: Any, app: Flask, broker: TableBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BrokerConnectionError("redis.example:6379 refuses connections")

    failed = fail(broker)
    page = admin.get("/ops")
    for name in ("status", "find"):
        monkeypatch.setattr(queue_admin, name, refuse)
    text = text_of(admin.get("/ops"))
    assert "The queue's server cannot be reached: redis.example:6379 refuses connections" in text
    assert "Run now" in text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token
    assert admin.post(f"/ops/jobs/{failed}/retry", data={"csrf_token": token[1]}).location == "/ops"
    assert "cannot be reached; nothing was changed." in text_of(admin.get("/ops"))
