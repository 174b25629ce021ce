"""Imports and exports: their page, their jobs, and when they are forgotten."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from flask import Flask
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from app import transfers
from app.accounts import User
from app.services import transaction
from app.transfers import Transfer, counted, forget_transfers, give_up_transfer, unfinished
from config import Settings
from database import utc_now
from database.schedule import SCHEDULES
from storage.disks import Disks

Work = Callable[[], int]
Start = Callable[..., str]
SLOT = "2026-01-01T03:45:00+00:00"
JSON = {"Accept": "application/json"}


@pytest.fixture
def start(app: Flask, user: User) -> Start:
    """Stores an export of ada's, or another transfer with the given fields; returns its key."""

    def start(**fields: Any) -> str:
        key = secrets.token_hex(16)
        common = {"id": key, "owner_id": user.id, "disk": "exports", "total": 5}
        with transaction(app) as session:
            session.add(Transfer(**{**common, "file": f"transfers/{key}/file", **fields}))
        return key

    return start


@pytest.fixture
def actor(app: Flask) -> Iterator[dramatiq.Actor[..., Any]]:
    """A job of transfers that always fails."""

    @dramatiq.actor(actor_name="test_fail", max_retries=0, on_retry_exhausted=give_up_transfer.actor_name)
    def fail(_key: str) -> None:
        raise RuntimeError

    yield fail
    del dramatiq.get_broker().actors["test_fail"]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({}, ["<h1>Export to file</h1>", "Waiting …", "0 of 5", "/static/progress.js", "<noscript><meta http-equiv"]),
        ({"state": "running", "done": 2}, ["Running …", "2 of 5", 'max="5" value="2"']),
        ({"state": "done", "done": 5}, ["Done: 5 rows.", "Download file", "kept for 7 days"]),
        ({"state": "done", "done": 5, "disk": "batches"}, ["<h1>Import of file</h1>", "Done: 5 rows."]),
        ({"state": "failed"}, ["Something went wrong on our side."]),
        (
            {"state": "refused", "mistakes": [(2, "title", "Too <long>."), (7, "body", "Empty.")]},
            ["Nothing was imported.", "<td>2</td><td>title</td><td>Too &lt;long&gt;.</td>", "<td>7</td>"],
        ),
    ],
)
def test_its_page_says_how_it_is(
    logged_in: Any,
    start: Start,
    page_problems: Callable[[TestResponse], list[str]],
    fields: dict[str, Any],
    texts: list[str],
) -> None:
    page = logged_in.get(f"/transfers/{start(**fields)}")
    assert page.status_code == 200
    assert [text for text in texts if text not in page.text] == []
    assert ("refresh" in page.text) is (fields.get("state", "waiting") in ("waiting", "running"))
    assert ("/files/" in page.text) is ("Download file" in texts)
    assert page_problems(page) == []


def test_only_its_owner_sees_it(app: Flask, client: Any, start: Start, other_user: User) -> None:
    key = start()
    assert client.get(f"/transfers/{key}").location == "/login"
    assert client.get(f"/transfers/{key}", headers=JSON).status_code == 401
    client.log_in(other_user.username)
    for path in (f"/transfers/{key}", "/transfers/1", f"/transfers/{'0' * 1000}"):
        assert client.get(path).status_code == 404
        assert client.get(path, headers=JSON).status_code == 404


def test_progress_can_be_seen_while_the_job_runs_and_nobody_has_to_wait(
    app: Flask, logged_in: Any, start: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "STEP", 2)
    key, seen = start(), []
    with transaction(app):
        transfer = unfinished(key, lock=False)
        assert transfer
        for row in counted(transfer, "abcde"):
            with sqlite3.connect(settings.app_dir.database, timeout=0) as other:
                other.execute("UPDATE user_account SET email = 'new@example.org'")
            other.close()
            answer = logged_in.get(f"/transfers/{key}", headers=JSON).json
            seen.append((row, answer["state"], answer["done"]))
    assert seen == [(row, "running", done) for row, done in zip("abcde", (0, 0, 2, 2, 4), strict=True)]
    answer = logged_in.get(f"/transfers/{key}", headers=JSON).json
    assert answer == {"state": "running", "done": 5, "total": 5, "finished": False}


def test_a_job_that_has_failed_for_good_ends_what_has_not_ended(
    app: Flask, start: Start, actor: dramatiq.Actor[..., Any], work: Work
) -> None:
    keys = {state: start(state=state) for state in ("waiting", "running", "done", "refused")}
    with app.app_context():
        for key in (*keys.values(), "gone"):
            actor.send(key)
    assert work() == 5
    with transaction(app) as session:
        states = [session.get_one(Transfer, key).state for key in keys.values()]
    assert states == ["failed", "failed", "done", "refused"]


def test_it_is_forgotten_after_a_week_and_its_file_a_day_later(
    app: Flask, start: Start, disks: Disks, settings: Settings, work: Work, tomorrow: Callable[[], None]
) -> None:
    old = {disk: f"transfers/{start(disk=disk)}/file" for disk in ("exports", "batches")}
    new = f"transfers/{start()}/file"
    for disk, path in (*old.items(), ("exports", new), ("exports", "transfers/orphan/file"), ("exports", "report")):
        disks[disk].write(path, b"")

    def held() -> set[str]:
        return {entry.path for disk in disks.values() for entry in disk.list()}

    def after(days: int, *paths: str) -> set[str]:
        """Forget what is to be forgotten when these files, and their transfers, are so old."""
        moment = utc_now() - timedelta(days=days)
        for path in paths:
            for place in settings.app_dir.data.glob(f"*/{path}"):
                os.utime(place, (moment.timestamp(), moment.timestamp()))
        with transaction(app) as session:
            session.execute(update(Transfer).where(Transfer.file.in_(paths)).values(created=moment))
        forget_transfers(SLOT)
        assert held() >= set(paths)
        tomorrow()
        assert work() == 0
        return held()

    paths = (*old.values(), "transfers/orphan/file", "report")
    assert after(0, *paths) == {*paths, new}
    assert after(6, *paths) == {*old.values(), "report", new}
    assert after(8, *old.values()) == {"report", new}
    with transaction(app) as session:
        assert list(session.scalars(select(Transfer.file))) == [new]
    assert forget_transfers.actor_name in SCHEDULES
