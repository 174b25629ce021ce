"""Reads backups: checks that they are whole, and makes an installation of one."""

import fcntl
import glob
import grp
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.engine import URL

from backup import databases, files
from backup.archive import Content, Entry, Manifest, Measured, read
from backup.create import PARTIAL, ignore
from backup.errors import BackupError, Refused
from backup.lock import remove_abandoned
from config import AppDir, AppDirError, Settings, load

# What has to be known before anything is unpacked: where the database is, as the backup's own settings say.
SETTINGS = (".env", "config")
DATABASES = {"sqlite": files.SQLITE, "postgresql": files.POSTGRES}


@dataclass(frozen=True)
class Verified:
    """A backup that is whole; `size` is that of all its files."""

    path: Path
    manifest: Manifest
    files: int
    size: int


@dataclass(frozen=True)
class Restored:
    """A new app folder; `database` is the PostgreSQL that was filled, if it is one; `is_behind` asks for migrations."""

    folder: Path
    backup: Verified
    database: URL | None
    is_behind: bool


def verify(path: Path, settings: Settings, position: Callable[[int], object] = ignore) -> Verified:
    """Read a whole backup: every hash and size, nothing missing and nothing more, and a database that is sound.

    Args:
        path: the backup.
        settings: say which application's backups these are, and the passphrase.
        position: is told up to where the file was read.

    Raises:
        Refused: it is no such backup, or not whole.
        BackupError: it cannot be checked here: a program or free disk space is missing.
    """
    with _opened(path) as file, _checked(path, file, settings, position) as (content, _):
        return Verified(path, content.manifest, content.files, content.size)


def restore(path: Path, folder: Path, settings: Settings, position: Callable[[int], object] = ignore) -> Restored:
    """Make an app folder of a backup, after all of it was verified; fill the PostgreSQL database if it has one.

    It is unpacked beside `folder` and renamed, so that `folder` is there when it is whole, or not at all.

    Args:
        path: the backup.
        folder: a folder that is empty, or not there.
        settings: say which application's backups these are, and the passphrase.
        position: is told up to where the file was read, twice.

    Raises:
        ConfigError: the settings in the backup are wrong.
        Refused: it is no such backup or not whole, or `folder` or the database is in use.
        BackupError: a program or disk space is missing, or something cannot be written; nothing is left behind.
    """
    from database.migrations import heads, revisions

    folder = folder.absolute()
    _require_free(folder)
    with _opened(path) as file:
        free = shutil.disk_usage(folder.parent).free
        with _checked(path, file, settings, position, free) as (content, temporary):
            known = content.manifest.database
            if unknown := set(known.revisions) - set(revisions()):
                raise Refused(f"{path}: its database is at revision {min(unknown)}, which this version does not know")
            url = _empty_database(settings, temporary) if known.kind == "postgresql" else None
        with _partial(folder) as partial:
            _unpack(path, file, settings, content, partial, position)
            if url:
                databases.restore_postgres(url, partial / files.POSTGRES)
                (partial / files.POSTGRES).unlink()
            partial.rename(folder)
    try:
        # Behind the lock on the new folder, which it takes itself.
        AppDir(folder).make()
    except AppDirError as error:
        raise BackupError(f"{folder}: is restored, but not complete: {error}") from None
    verified = Verified(path, content.manifest, content.files, content.size)
    return Restored(folder, verified, url, set(known.revisions) != heads())


def _require_free(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise Refused(f"{folder.parent}: there is no such folder; make it")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise Refused(f"{folder}: expected an empty folder, or nothing")
    if folder.is_dir():
        if os.path.ismount(folder):
            raise Refused(f"{folder}: a mount point, which cannot be replaced; name a folder in it")
        if any(folder.iterdir()):
            raise Refused(f"{folder}: not empty; name a folder that is empty or not there")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file to read; what the disk then refuses is one line."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"{path}: expected a file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise BackupError(f"{error.filename or path}: {error.strerror or error}") from None


@contextmanager
def _checked(
    path: Path, file: BinaryIO, settings: Settings, position: Callable[[int], object], limit: int | None = None
) -> Iterator[tuple[Content, Path]]:
    """What is in a whole backup, and a folder with its settings, for as long as these are needed."""
    with tempfile.TemporaryDirectory(prefix=f"{settings.app.slug}-") as name:
        temporary = Path(name)

        def take(entry: Entry, source: Measured | None) -> None:
            is_database = entry.path in DATABASES.values()
            if source and (is_database or entry.path.partition("/")[0] in SETTINGS):
                if entry.size > shutil.disk_usage(temporary).free:
                    raise BackupError(
                        f"{temporary.parent}: no room for {entry.size} bytes; set TMPDIR to a larger disk"
                    )
                _write(temporary / entry.path, source)

        try:
            content = read(file, settings.backup.passphrase, take, position, limit)
            slug, kind = content.manifest.slug, content.manifest.database.kind
            if slug != settings.app.slug:
                raise Refused(f"a backup of {slug!r}, expected one of {settings.app.slug!r}")
            found = [place for place in DATABASES.values() if (temporary / place).exists()]
            if found != [DATABASES.get(kind)]:
                raise Refused(f"altered: it has no database of the kind {kind!r}")
            check = databases.require_sound_sqlite if kind == "sqlite" else databases.require_sound_dump
            check(temporary / found[0])
        except Refused as error:
            raise Refused(f"{path}: {error}") from None
        yield content, temporary


def _empty_database(settings: Settings, restored: Path) -> URL:
    """The PostgreSQL that the environment or the settings in a backup name, in which there is nothing yet."""
    own = load({**os.environ, "APP_DIR": str(restored)}, settings.root)
    url = databases.address(own)
    if url.get_backend_name() != "postgresql":
        raise Refused("the backup is of a PostgreSQL database; set DATABASE_URL to an empty one")
    databases.require_empty(own, url)
    return url


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, to be filled and renamed. The lock on it ends with the process."""
    remove_abandoned(folder.parent, f".{glob.escape(folder.name)}-*{PARTIAL}")
    partial = Path(tempfile.mkdtemp(PARTIAL, f".{folder.name}-", folder.parent))
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield partial
    finally:
        os.close(descriptor)
        if partial.exists():
            shutil.rmtree(partial)


def _unpack(
    path: Path, file: BinaryIO, settings: Settings, content: Content, folder: Path, position: Callable[[int], object]
) -> None:
    """Fill a folder that is ours alone. Each file is compared again, so it does not matter who changes the backup."""
    folders = []

    def take(entry: Entry, source: Measured | None) -> None:
        place = folder / entry.path
        if source:
            _write(place, source)
            _give_state(place, entry)
        else:
            place.mkdir(parents=True, exist_ok=True)
            folders.append(entry)

    try:
        again = read(file, settings.backup.passphrase, take, position, content.size)
    except Refused as error:
        raise Refused(f"{path}: {error}") from None
    if again.manifest != content.manifest:
        raise Refused(f"{path}: changed while it was read")
    # Only now, and the innermost first: a folder may be one that cannot be written.
    for entry in reversed(folders):
        _give_state(folder / entry.path, entry)
    # The folder itself is not the service's, which could put another one in the place of its settings.
    _give_owner(folder, "", content.manifest.group)
    folder.chmod(0o750)


def _write(place: Path, source: Measured) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := source.read():
            file.write(chunk)


def _give_state(place: Path, entry: Entry) -> None:
    _give_owner(place, entry.owner, entry.group)
    place.chmod(int(entry.mode, 8))
    os.utime(place, (entry.modified, entry.modified))


def is_user(name: str) -> bool:
    """Whether this machine has a user of that name."""
    return _number(lambda: pwd.getpwnam(name).pw_uid) != -1


def _give_owner(place: Path, user: str, group: str) -> None:
    """Only root may; a name that is not known here stays with root."""
    if os.geteuid() == 0:
        os.chown(place, _number(lambda: pwd.getpwnam(user).pw_uid), _number(lambda: grp.getgrnam(group).gr_gid))


def _number(look_up: Callable[[], int]) -> int:
    try:
        return look_up()
    except KeyError:
        return -1
