"""A file outlives its row by a day, so no backup lacks a file that its database names; a timed job makes backups."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select

from app.jobs import back_up
from app.removals import remove_later
from app.services import transaction
from backup.archive import backups_in
from config import Settings
from database.base import database_time
from database.broker import QueueMessage
from database.schedule import SCHEDULES
from storage.disks import Disks

SLOT = "2026-01-01T02:00:00+00:00"
DAY = 86_400


def test_a_file_is_removed_a_day_after_its_row(
    app: Flask, disks: Disks, work: Callable[[], int], tomorrow: Callable[[], None]
) -> None:
    disks["media"].write("pictures/a.webp", b"a")
    with transaction(app):
        remove_later("media", "pictures/a.webp")
    with transaction(app) as session:
        [wait] = session.scalars(select(QueueMessage.due - database_time()))
    assert DAY - 60 < wait <= DAY
    assert work() == 0
    assert disks["media"].exists("pictures/a.webp")
    tomorrow()
    assert work() == 0
    assert not disks["media"].exists("pictures/a.webp")


def test_a_file_whose_row_stays_is_not_removed(
    app: Flask, disks: Disks, work: Callable[[], int], tomorrow: Callable[[], None]
) -> None:
    disks["media"].write("pictures/a.webp", b"a")

    def fail() -> None:
        with transaction(app):
            remove_later("media", "pictures/a.webp")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    tomorrow()
    assert work() == 0
    assert disks["media"].exists("pictures/a.webp")


@pytest.fixture
def whole(settings: Settings) -> Path:
    """The folder for backups of an installation that has all its folders."""
    settings.app_dir.make()
    return settings.app_dir.path / "backups"


def test_the_timed_job_makes_a_backup_and_is_disabled(app: Flask, settings: Settings, whole: Path) -> None:
    assert SCHEDULES["back_up"].cron == "0 2 * * *"
    assert "back_up" in settings.schedule.disabled
    back_up(SLOT)
    assert len(backups_in(whole, settings)) == 1
