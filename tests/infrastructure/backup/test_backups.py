"""What is in a backup, what comes back, and which backups stay."""

import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from backup import archive
from backup.archive import backups_in, create, restore, verify
from backup.databases import BackupError
from config import Settings
from database import connect
from tests.infrastructure.backup.conftest import FILES, LEFT_OUT


def actors(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT actor FROM job_count ORDER BY actor")]


def test_files_and_rows_come_back(settings: Settings, tmp_path: Path) -> None:
    path = create(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    restore(path, tmp_path / "restored", settings)
    for name, content in FILES.items():
        assert (tmp_path / "restored" / name).read_bytes() == content, name
    assert (tmp_path / "restored/.env").read_text() == settings.app_dir.env_file.read_text()
    assert not any((tmp_path / "restored" / name).exists() for name in (*LEFT_OUT, "media/link", "manifest.json"))
    assert actors(tmp_path / "restored/data/app.sqlite3") == ["kept"]
    assert {"logs", "work", "backups"} <= {path.name for path in (tmp_path / "restored").iterdir()}


def test_what_is_not_committed_is_not_in_the_copy_and_the_writer_goes_on(settings: Settings, tmp_path: Path) -> None:
    with closing(sqlite3.connect(settings.app_dir.database)) as writer:
        writer.execute("INSERT INTO job_count VALUES (1, 'pending', 'done', 1)")
        path = create(settings)
        writer.commit()
    restore(path, tmp_path / "restored", settings)
    assert actors(tmp_path / "restored/data/app.sqlite3") == ["kept"]
    assert actors(settings.app_dir.database) == ["kept", "pending"]


def test_nothing_is_left_of_one_that_failed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "write", full)
    with pytest.raises(BackupError, match=r"No space left on device$"):
        create(settings)
    assert [path.name for path in (settings.app_dir.path / "backups").iterdir()] == ["old.tar.gz"]


def test_a_folder_in_use_is_not_restored_into(settings: Settings, tmp_path: Path) -> None:
    path = create(settings)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    with pytest.raises(BackupError, match="is not empty"):
        restore(path, tmp_path / "used", settings)
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]


def dated(settings: Settings, days: int) -> Path:
    """A backup as if it had been made so many days from now."""
    moment = datetime.now(UTC) + timedelta(days=days)
    path = settings.app_dir.path / "backups" / f"{settings.app.slug}-{moment:%Y%m%dT%H%M%SZ}.tar.gz"
    path.write_bytes(b"")
    return path


def test_the_oldest_ones_go_and_the_new_one_stays(settings: Settings) -> None:
    old = [dated(settings, -day) for day in range(1, 10)]
    path = create(settings)
    assert backups_in(settings.app_dir.path / "backups", settings) == [*reversed(old[: settings.backup.keep - 1]), path]


def test_backups_that_a_wrong_clock_has_dated_go_first(settings: Settings) -> None:
    wrong = [dated(settings, 1400 + day) for day in range(settings.backup.keep)]
    right = dated(settings, -1)
    path = create(settings)
    kept = backups_in(settings.app_dir.path / "backups", settings)
    assert kept[:2] == [right, path]
    assert kept[2:] == wrong[2:]


def test_none_goes_for_one_that_cannot_be_read_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [dated(settings, -day) for day in range(1, 10)]

    def damaged(*_: object) -> None:
        raise BackupError("damaged")

    monkeypatch.setattr(archive, "verify", damaged)
    with pytest.raises(BackupError):
        create(settings)
    assert len(backups_in(settings.app_dir.path / "backups", settings)) == len(old)


def test_a_database_that_is_damaged_is_not_backed_up(settings: Settings) -> None:
    connect(f"sqlite:///{settings.app_dir.database}").dispose()
    with settings.app_dir.database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    with pytest.raises(BackupError):
        create(settings)


def test_a_backup_of_another_application_is_refused(settings: Settings) -> None:
    path = create(settings)
    other = msgspec.structs.replace(settings, app=msgspec.structs.replace(settings.app, slug="other"))
    with pytest.raises(BackupError, match=f"a backup of '{settings.app.slug}', expected one of 'other'$"):
        verify(path, other)
