"""Makes backups, and copies of the database alone, while the service goes on."""

import fcntl
import glob
import heapq
import os
import platform
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from backup import databases, files
from backup.archive import FORMAT, Database, Manifest, Writer
from backup.encryption import encrypt
from backup.errors import BackupError, Refused
from backup.lock import no_removals, remove_abandoned
from config import Settings, project_version

TIME = "%Y%m%dT%H%M%SZ"
DIGITS = r"\d{8}T\d{6}Z"
PARTIAL = ".partial"
# Where the copy of the database lies until it is in the backup, in `work` of the app folder.
COPIES = "backup-"


@dataclass
class Created:
    """A new backup.

    `size` is that of all files in it, `not_included` says what has to be kept in another way, `vanished` are files
    that were removed while the backup was made, `pruned` are the backups that were removed because it is there.
    """

    path: Path
    files: int = 0
    size: int = 0
    not_included: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    pruned: list[Path] = field(default_factory=list)


def ignore(_told: object) -> None:
    """For who wants no progress."""


def folder_of(settings: Settings) -> Path:
    """Where backups lie, if nobody says otherwise."""
    return settings.app_dir.path / settings.backup.folder if settings.backup.folder else settings.app_dir.backups


def create(
    settings: Settings,
    folder: Path | None = None,
    keep: int | None = None,
    start: Callable[[int], object] = ignore,
    seen: Callable[[int], object] = ignore,
) -> Created:
    """Write a backup of the app folder and the database into `folder`, all or nothing; then remove old ones.

    Args:
        settings: those of the installation.
        folder: where it belongs; `backup.folder` if not given.
        keep: how many backups stay there, with the new one; `backup.keep` if not given.
        start: is told how many bytes there are about to be read.
        seen: is told how many bytes were read since it was told last.

    Raises:
        ConfigError: a setting is wrong.
        Refused: `folder` cannot be used.
        BackupRunning: another backup is being made.
        BackupError: something in the app folder cannot be backed up, or a disk is full.
    """
    root, folder = settings.app_dir.path.resolve(), (folder or folder_of(settings)).resolve()
    if not root.is_dir():
        raise Refused(f"{root}: there is no app folder; set APP_DIR, or run `python main.py appdir make`")
    _require_folder(folder)
    if folder.is_relative_to(root) and files.is_included(str(folder.relative_to(root))):
        raise Refused(f"{folder}: lies in what is backed up; name a folder elsewhere")
    url = databases.address(settings)
    database = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    left_out, not_included = files.left_out(settings, database)
    try:
        with no_removals(settings.app_dir), _work_folder(settings.app_dir.work) as work:
            remove_abandoned(folder, f"{glob.escape(settings.app.slug)}-[0-9]*{PARTIAL}")
            size = sum(found.status.st_size for found in files.walk(root, left_out, ignore) if not found.is_folder)
            created = datetime.now(UTC)
            copy = work / "copy"
            if database:
                start(size + 2 * (database.stat().st_size if database.is_file() else 0))
                known = databases.copy_sqlite(database, copy, seen)
            else:
                start(size)
                known = databases.dump_postgres(settings, url, copy)
            manifest = _manifest(settings, created, known, not_included)
            done = Created(_free_path(folder, settings, created), not_included=not_included)
            # The copy gets the mode and owner of the database, not of who makes the backup.
            state = (database or copy).stat()
            inserted = files.Found(files.SQLITE if database else files.POSTGRES, -1, state)
            with _new_file(done.path) as file, _sealed(file, settings) as stream, Writer(stream, manifest, seen) as tar:
                _write(tar, done, root, left_out, inserted, copy)
            done.pruned = _prune(done.path, backups_in(folder, settings.app.slug), keep or settings.backup.keep)
    except OSError as error:
        raise BackupError(f"{error.filename or folder}: {error.strerror or error}") from None
    return done


def copy_database(
    settings: Settings, folder: Path | None = None, seen: Callable[[int], object] = ignore
) -> Path | None:
    """Write a copy of the database alone into `folder`, all or nothing; then remove old ones.

    Nothing waits for it, and it waits for nothing: it names no files.

    Args:
        settings: those of the installation.
        folder: where it belongs. If not given, `backup.folder`; where backups are encrypted, `backups` of the app
            folder, because the copy is not.
        seen: is told how many bytes there were since it was told last; nothing of a dump.

    Returns:
        The copy; None if there is no database yet.

    Raises:
        ConfigError: a setting is wrong.
        Refused: `folder` cannot be used.
        BackupError: the database cannot be read, or a disk is full.
    """
    url = databases.address(settings)
    database = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    if database and not database.exists():
        return None
    folder = (folder or (settings.app_dir.backups if settings.backup.passphrase else folder_of(settings))).resolve()
    _require_folder(folder)
    stem = f"{settings.app.slug}-database"
    try:
        remove_abandoned(folder, f"{glob.escape(stem)}-*{PARTIAL}")
        with _partial_folder(folder, f"{stem}-{secrets.token_hex(8)}{PARTIAL}") as place:
            copy, now = place / "copy", datetime.now(UTC)
            if database:
                databases.copy_sqlite(database, copy, seen)
            else:
                databases.dump_postgres(settings, url, copy)
            _sync(copy)
            while (path := folder / f"{stem}-{now:{TIME}}{'.sqlite3' if database else '.dump'}").exists():
                now += timedelta(seconds=1)
            copy.rename(path)
            _sync(folder)
        _prune(path, _named(folder, re.escape(stem) + rf"-{DIGITS}\.(sqlite3|dump)"), settings.backup.keep)
    except OSError as error:
        raise BackupError(f"{error.filename or folder}: {error.strerror or error}") from None
    return path


def backups_in(folder: Path, slug: str) -> list[Path]:
    """The backups of an application in a folder, oldest first; nothing else that lies there."""
    return _named(folder, re.escape(slug) + rf"-{DIGITS}\.tar(\.gz)?")


def _named(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder with such names, sorted by these."""
    found = (path for path in folder.iterdir() if re.fullmatch(pattern, path.name))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise Refused(f"{folder}: there is no such folder; make it, or run `python main.py appdir make`")


def _write(
    tar: Writer, done: Created, root: Path, left_out: Collection[str], inserted: files.Found, copy: Path
) -> None:
    """Add all files, and the copy of the database among them, where it belongs by its path."""
    found_files = files.walk(root, left_out, done.vanished.append)
    for found in heapq.merge([inserted], found_files, key=lambda found: files.sort_key(found.path)):
        if found.is_folder:
            tar.add(found.path, found.status)
            continue
        try:
            place, folder = (found.name, found.folder) if found is not inserted else (copy, None)
            file = os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb")
        except FileNotFoundError:
            done.vanished.append(found.path)
            continue
        except OSError as error:
            raise BackupError(f"{str(root / found.path)!r}: cannot be read: {error.strerror}") from None
        with file:
            size = os.fstat(file.fileno()).st_size
            tar.add(found.path, found.status, file, size)
            done.files += 1
            done.size += size


def _manifest(settings: Settings, created: datetime, database: Database, not_included: list[str]) -> Manifest:
    # Who the service runs as: the folder itself may be root's.
    user, group = files.owner(settings.app_dir.data.stat())
    return Manifest(
        format=FORMAT,
        slug=settings.app.slug,
        version=project_version(settings.root),
        python=platform.python_version(),
        created=created.isoformat(timespec="seconds"),
        database=database,
        owner=user,
        group=group,
        not_included=not_included,
    )


def _free_path(folder: Path, settings: Settings, created: datetime) -> Path:
    """The name of a backup of this time; of the next free second, if there is one already."""
    while True:
        path = folder / f"{settings.app.slug}-{created:{TIME}}"
        encrypted, plain = path.with_name(f"{path.name}.tar"), path.with_name(f"{path.name}.tar.gz")
        if not encrypted.exists() and not plain.exists():
            return encrypted if settings.backup.passphrase else plain
        created += timedelta(seconds=1)


def _sealed(file: BinaryIO, settings: Settings) -> AbstractContextManager[BinaryIO]:
    return encrypt(file, settings.backup.passphrase) if settings.backup.passphrase else nullcontext(file)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is there when it is whole and on the disk, or not at all. The lock ends with the process."""
    partial = path.with_name(path.name + PARTIAL)
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(descriptor)
            partial.rename(path)
        _sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _partial_folder(folder: Path, name: str) -> Iterator[Path]:
    """A folder in another one for what is half written, which nobody else may enter. Its lock ends with the process."""
    place = folder / name
    place.mkdir(0o700)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield place
    finally:
        shutil.rmtree(place)
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _work_folder(work: Path) -> Iterator[Path]:
    """A folder for the copy of the database, which nobody else may enter."""
    remove_abandoned(work, f"{COPIES}*")
    with tempfile.TemporaryDirectory(prefix=COPIES, dir=work) as folder:
        yield Path(folder)


def _prune(newest: Path, existing: list[Path], keep: int) -> list[Path]:
    """Remove all but so many of them, never the new one, and first those of a later date: their clock was wrong."""
    others = sorted((path for path in existing if path != newest), key=lambda path: (path < newest, path))
    pruned = others[: max(0, len(others) - keep + 1)]
    for path in pruned:
        path.unlink(missing_ok=True)
    return pruned
