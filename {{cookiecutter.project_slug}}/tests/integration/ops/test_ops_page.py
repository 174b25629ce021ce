"""The page of administrators: who sees it, and what it shows."""

import html
import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import svcs
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from app.ops import error_log
from app.services import transaction
from config import Settings
from database import utc_now
from database.broker import QueueMessage
from database.job_counts import JobCount
from database.migrations import scripts
from database.schedule import SCHEDULES, send_slot
from storage.disks import Disks

JOB = uuid.uuid4()
ACTIONS = ["/ops/jobs/retry", f"/ops/jobs/{JOB}/retry", f"/ops/jobs/{JOB}/cancel", "/ops/schedules/remove_expired/run"]


def text_of(response: TestResponse) -> str:
    """What people read, in one line."""
    assert response.status_code == 200
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", response.text)).split())


def test_a_visitor_is_asked_to_log_in_and_comes_back(admin: Any, app: Flask) -> None:
    other: Any = app.test_client()
    assert other.get("/ops", headers={"Accept": "application/json"}).status_code == 401
    assert other.options("/ops").location == "/login"
    assert other.get("/ops").location == "/login"
    assert other.log_in("ada").location == "/ops"


def test_for_other_users_there_is_no_such_page(logged_in: Any) -> None:
    assert logged_in.get("/ops").status_code == 404
    assert [logged_in.submit(path, page="/logout").status_code for path in ACTIONS] == [404] * len(ACTIONS)
    assert "/ops" not in logged_in.get("/").text


def test_only_forms_of_the_page_change_anything(admin: Any, app: Flask, fragile: Any) -> None:
    message_id = fragile.send().message_id
    actions = [*ACTIONS, f"/ops/jobs/{message_id}/cancel"]
    assert {admin.get(path).status_code for path in actions} == {405}
    assert {admin.post(path).status_code for path in actions} == {400}
    assert app.test_client().submit(actions[-1], page="/login").location == "/login"  # type: ignore[attr-defined]
    with transaction(app) as session:
        assert list(session.scalars(select(QueueMessage.message_id))) == [message_id]


def test_it_keeps_to_what_all_pages_keep_to(
    admin: Any, app: Flask, fragile: Any, work: Callable[[], int], page_problems: Callable[[TestResponse], list[str]]
) -> None:
    assert page_problems(admin.get("/ops")) == []
    fragile.send("broken")
    fragile.send()
    work()
    fragile.send()
    fragile.send_with_options(delay=3_600_000)
    assert page_problems(admin.get("/ops")) == []
    assert 'href="/ops"' in admin.get("/").text


def test_it_tells_the_release_and_how_each_service_is(admin: Any, app: Flask) -> None:
    text = text_of(admin.get("/ops"))
    version = app.test_client().get("/version").json["version"]  # type: ignore[index]
    assert "database ok migrations ok queue ok storage ok" in text
    heads = ", ".join(sorted(scripts().get_heads(consider_depends_on=True)))
    assert f"version {version} environment testing database {heads}" in text


def test_a_service_that_fails_is_named_and_breaks_nothing(admin: Any, app: Flask) -> None:
    def fail(_service: object) -> None:
        raise ConnectionError("postgresql://user:password@host")

    with app.app_context():
        svcs.flask.register_value(app, Disks, svcs.flask.get(Disks), ping=fail)
    text = text_of(admin.get("/ops"))
    assert "storage failed: ConnectionError" in text
    assert "password" not in text


def test_jobs_are_listed_by_state_with_what_can_be_done_to_them(admin: Any, fragile: Any, running: str) -> None:
    waiting = fragile.send().message_id
    delayed = fragile.send_with_options(delay=3_600_000).message_id
    page = admin.get("/ops").text
    assert all(page.count(f"<code>{message_id[:8]}</code>") == 1 for message_id in (waiting, delayed, running))
    assert re.findall(r'action="/ops/jobs/([^"]+)"', page) == [f"{delayed}/cancel", f"{waiting}/cancel"]
    assert "default, due in 59 min" in text_of(admin.get("/ops"))


def test_failed_jobs_are_listed_with_their_errors(admin: Any, fragile: Any, work: Callable[[], int]) -> None:
    failed = fragile.send("<b>bad</b>").message_id
    assert work() == 1
    page = admin.get("/ops").text
    assert re.findall(r'action="/ops/jobs/([^"]+)"', page) == ["retry", f"{failed}/retry", f"{failed}/cancel"]
    assert "<summary><code>ValueError: &lt;b&gt;bad&lt;/b&gt;</code></summary>" in page


def test_long_lists_are_cut_and_say_so(admin: Any, fragile: Any) -> None:
    for _ in range(21):
        fragile.send()
    response = admin.get("/ops")
    assert "Waiting jobs 20 of 21" in text_of(response)
    assert response.text.count('/cancel"') == 20


def test_the_last_24_hours_are_drawn_and_counted(admin: Any, app: Flask) -> None:
    assert "Last 24 hours No job has run." in text_of(admin.get("/ops"))
    hour = int(time.time()) // 3600 * 3600
    # Too old, twice within the day, and while the clock was wrong.
    for age, jobs in ((24, 1), (22, 1000), (1, 200), (-1, 1)):
        for outcome, part in (("done", jobs), ("failed", jobs // 100)):
            with transaction(app) as session:
                session.add(JobCount(hour=hour - age * 3600, actor="tidy", outcome=outcome, jobs=part))
    response = admin.get("/ops")
    text = text_of(response)
    assert "Jobs per hour 1,200 done 12 failed" in text
    assert "tidy 1,200 12" in text
    assert [response.text.count(f'<rect class="{kind}"') for kind in ("done", "failed")] == [2, 2]
    assert 'aria-label="Jobs per hour: at most 1,010"' in response.text


def test_schedules_tell_when_and_how(admin: Any, app: Flask, make_app: Callable[..., Flask]) -> None:
    with transaction(app) as session:
        # The last one is of a clock that was ahead.
        for hours in (30, 3, -9000):
            assert send_slot(SCHEDULES["remove_expired"], session, utc_now() - timedelta(hours=hours, minutes=1))
    line = r"remove_expired 30 3 \* \* \* UTC, next in \d+ (h|min|s) , last 3 h ago : sent Run now"
    assert re.search(line, text_of(admin.get("/ops")))
    other: Any = make_app(APP_SCHEDULE__DISABLED='["remove_expired"]').test_client()
    other.log_in("ada")
    assert "remove_expired 30 3 * * * UTC, disabled, last 3 h ago : sent Run now" in text_of(other.get("/ops"))


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def error(event: str, **fields: object) -> str:
    minutes_ago = (utc_now() - timedelta(minutes=3, seconds=1)).isoformat()
    return json.dumps({"timestamp": minutes_ago, "level": "error", "logger": "app.x", "event": event, **fields})


def test_errors_are_shown_latest_first(admin: Any, settings: Settings) -> None:
    traceback = "Traceback:\n  <i>\nValueError: no <b>\n"
    second = error("<i>second</i>", request_id="abc-1", exception=traceback)
    write_lines(settings.app_dir.error_log, error("first"), second)
    response = admin.get("/ops")
    page = response.text
    assert page.index("&lt;i&gt;second&lt;/i&gt;") < page.index("first")
    assert "<summary><code>ValueError: no &lt;b&gt;</code></summary>" in page
    assert "3 min ago , app.x, request abc-1" in text_of(response)


def test_an_error_that_the_service_logs_is_shown(admin: Any) -> None:
    assert text_of(admin.get("/ops")).count("None.") == 5
    logging.getLogger("app").error("the disk is full")
    assert "the disk is full" in text_of(admin.get("/ops"))


def test_lines_that_are_no_errors_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    write_lines(path, "not json", "[]", '{"event": 7}', error("whole"), error("last"), '{"event": "cut')
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n")
    assert [entry.event for entry in error_log.errors(path)] == ["last", "whole"]


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_log, "TAIL", 1000)
    path = tmp_path / "errors.jsonl"
    write_lines(path, *(error(f"error {number}") for number in range(100)))
    found = [entry.event for entry in error_log.errors(path)]
    assert 1 < len(found) < 12
    assert found == [f"error {number}" for number in range(99, 99 - len(found), -1)]


def test_a_log_that_cannot_be_read_is_named(admin: Any, settings: Settings) -> None:
    settings.app_dir.error_log.mkdir()
    assert f"{settings.app_dir.error_log} cannot be read: Is a directory." in text_of(admin.get("/ops"))
