"""Who waits for whom: backups, and jobs that remove files."""

import fcntl
import threading
from pathlib import Path

import pytest

from backup import BackupError, BackupRunning, lock, removal
from backup.lock import no_removals
from config import AppDir


@pytest.fixture
def folder(tmp_path: Path) -> AppDir:
    return AppDir(tmp_path)


def test_nothing_is_removed_while_a_backup_is_made(folder: AppDir) -> None:
    with no_removals(folder), pytest.raises(BackupRunning), removal(folder):
        raise AssertionError
    with removal(folder):
        pass


def test_removals_do_not_wait_for_each_other(folder: AppDir) -> None:
    with removal(folder), removal(folder):
        pass


def test_a_backup_waits_for_a_removal_that_has_begun(folder: AppDir) -> None:
    begun, order = threading.Event(), []

    def back_up() -> None:
        begun.set()
        with no_removals(folder):
            order.append("backup")

    with removal(folder):
        thread = threading.Thread(target=back_up)
        thread.start()
        begun.wait(10)
        order.append("removal")
    thread.join(10)
    assert order == ["removal", "backup"]


def test_a_removal_that_does_not_end_is_told(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    with removal(folder), pytest.raises(BackupError, match=r"backup\.lock: locked"), no_removals(folder):
        raise AssertionError
    with no_removals(folder):
        pass


def test_the_lock_is_one_of_the_kernel_on_the_file_that_the_app_folder_names(folder: AppDir) -> None:
    with no_removals(folder), folder.backup_lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    with pytest.raises(BackupError, match=r"work/backup\..*: cannot be locked"), no_removals(AppDir(tmp_path)):
        raise AssertionError
