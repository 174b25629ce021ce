"""Jobs that remove files put it off while a backup is made; the timed job makes one."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest
from flask import Flask
from sqlalchemy import Engine, select

from app.accounts.jobs import remove_abandoned_uploads, remove_file
from app.jobs import back_up
from app.services import transaction
from backup import PUT_OFF
from backup.create import backups_in, create
from backup.lock import no_removals
from config import Settings
from database import connect, sessions, utc_now
from database.messages import LATER, QueueMessage
from database.once import once
from database.schedule import SCHEDULES
from storage.disks import Disks

SLOT = "2026-01-01T02:00:00+00:00"


def put_off(app: Flask) -> list[tuple[str, list[str]]]:
    """The jobs that wait for as long as a backup is waited for, and their arguments."""
    found = []
    with transaction(app) as session:
        for row in session.scalars(select(QueueMessage).where(QueueMessage.state == LATER)):
            assert 0 < row.due - time.time() <= PUT_OFF / 1000 + 1
            message = dramatiq.Message.decode(row.payload)
            found.append((message.actor_name, list(message.args)))
    return found


def test_a_file_is_removed_only_after_the_backup(app: Flask, settings: Settings, disks: Disks) -> None:
    disks["media"].write("pictures/a.webp", b"a")
    with no_removals(settings.app_dir):
        remove_file("media", "pictures/a.webp")
        assert disks["media"].exists("pictures/a.webp")
    assert put_off(app) == [("remove_file", ["media", "pictures/a.webp"])]
    remove_file("media", "pictures/a.webp")
    assert not disks["media"].exists("pictures/a.webp")


def test_the_clean_up_of_uploads_comes_back_after_the_backup(app: Flask, settings: Settings, disks: Disks) -> None:
    disks["default"].write("accounts/uploads/abandoned", b"a")
    old = (utc_now() - timedelta(days=2)).timestamp()
    os.utime(settings.app_dir.data / "uploads/accounts/uploads/abandoned", (old, old))
    with no_removals(settings.app_dir):
        remove_abandoned_uploads(SLOT)
        assert disks["default"].exists("accounts/uploads/abandoned")
    assert put_off(app) == [("remove_abandoned_uploads", [SLOT])]
    remove_abandoned_uploads(SLOT)
    assert not disks["default"].exists("accounts/uploads/abandoned")


def test_a_worker_does_not_call_it_a_failure(
    app: Flask, settings: Settings, disks: Disks, work: Callable[[], int]
) -> None:
    disks["media"].write("pictures/a.webp", b"a")
    with transaction(app):
        remove_file.send("media", "pictures/a.webp")
    with no_removals(settings.app_dir), app.app_context():
        broker = dramatiq.get_broker()
        worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
        worker.start()
        deadline = time.monotonic() + 20
        while not put_off(app):
            assert time.monotonic() < deadline
        worker.stop()
    assert put_off(app) == [("remove_file", ["media", "pictures/a.webp"])]


@pytest.fixture
def whole(settings: Settings) -> Path:
    """The folder for backups of an installation that has all its folders."""
    settings.app_dir.make()
    return settings.app_dir.backups


def test_the_timed_job_makes_a_backup_and_is_disabled(app: Flask, settings: Settings, whole: Path) -> None:
    assert SCHEDULES["back_up"].when == "0 2 * * *"
    assert "back_up" in settings.schedule.disabled
    back_up(SLOT)
    assert len(backups_in(whole, settings.app.slug)) == 1


def test_the_timed_job_lets_others_write(
    app: Flask, settings: Settings, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_beside_a_writer(settings: Settings) -> object:
        engine: Engine = connect(f"sqlite:///{settings.app_dir.database}", timeout=0.1)
        with sessions(engine).begin() as session:
            assert once("written meanwhile", session)
        engine.dispose()
        return create(settings)

    monkeypatch.setattr("app.jobs.create", create_beside_a_writer)
    back_up(SLOT)
    assert len(backups_in(whole, settings.app.slug)) == 1
