"""Why no file is missing that the database copy in a backup refers to.

Files are written before the row that names them is committed, and never changed. They are removed by jobs, after the
commit that takes their name out of the database. So a backup copies the database first and the files afterwards, and
between the two nothing may be removed: a row that the copy holds may have lost its file by then.

A backup therefore holds a lock from before the copy of the database until the last file is read, and whoever removes
a file holds the same lock, shared, for the moment of the removal. A removal that has begun is waited for: its row was
gone before the lock was had, so the copy does not name the file either. One that comes later finds the lock taken and
puts its work off. The locks are the kernel's: they end with their process, however that ends.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backup.errors import BackupError, BackupRunning
from config import AppDir

# Milliseconds after which a job that had to wait for a backup looks again.
PUT_OFF = 60_000
# Seconds that a backup waits for removals that have begun, each of which takes milliseconds.
PATIENCE = 10.0


@contextmanager
def removal(app_dir: AppDir) -> Iterator[None]:
    """Around the removal of a file that rows in the database have named.

    Raises:
        BackupRunning: a backup is being made; come back after PUT_OFF.
    """
    descriptor = _open(app_dir.backup_lock, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRunning("a backup is being made") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def no_removals(app_dir: AppDir) -> Iterator[None]:
    """Around a backup: nothing is removed, and no second backup is made.

    Two files are locked, since of two backups the second one gives up at once, while a removal is waited for.

    Raises:
        BackupRunning: another backup is being made.
        BackupError: a removal does not end.
    """
    one = _open(app_dir.backup_lock.with_suffix(".one"), os.O_RDWR)
    removals = _open(app_dir.backup_lock, os.O_RDWR)
    try:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRunning("another backup is being made; try again when it is done") from None
        deadline = time.monotonic() + PATIENCE
        while not _lock(removals):
            if time.monotonic() > deadline:
                raise BackupError(f"{app_dir.backup_lock}: locked for {PATIENCE:.0f} s by a job that removes a file")
            time.sleep(0.02)
        yield
    finally:
        os.close(removals)
        os.close(one)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove what killed runs have left in `folder`: files and folders of such names that nobody holds a lock on."""
    for place in sorted(folder.glob(pattern)):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # It is somebody else's, or gone.
        try:
            if _lock(descriptor):
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, flags: int) -> int:
    """A lock file, which is made if it is not there: the folder `work` may vanish at any time."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise BackupError(f"{path}: cannot be locked: {error.strerror}") from None
