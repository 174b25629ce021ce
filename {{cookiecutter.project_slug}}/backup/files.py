"""What of the app folder belongs into a backup."""

import functools
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from backup.errors import BackupError
from config import Settings, mask
from config.appdir import FILES, PARTS
from storage import InvalidPath
from storage.disks import disk_url
from storage.paths import PARTIAL

FOLDERS = tuple(name for name, part in PARTS.items() if part.in_backups)
# The copy of the database: where SQLite's belongs anyway, and a dump of PostgreSQL.
SQLITE = "data/app.sqlite3"
POSTGRES = "database.dump"
# SQLite's own files beside a database, and itself.
SUFFIXES = ("", "-wal", "-shm", "-journal")


# The longest path of Linux, in bytes, and what no name in a backup holds.
LONGEST_PATH = 4096
FORBIDDEN = re.compile("[\0-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Found:
    """A file or folder: its path in the app folder, the open folder that it lies in, and its state."""

    path: str
    folder: int
    status: os.stat_result

    @property
    def name(self) -> str:
        """The last name of its path."""
        return self.path.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, and not a file."""
        return stat.S_ISDIR(self.status.st_mode)


def walk(root: Path, left_out: Collection[str], vanished: Callable[[str], object]) -> Iterator[Found]:
    """All that belongs into a backup, each folder before what is in it, in the order of `sort_key`.

    Folders are opened one below the other, never by path: whoever may write in the app folder cannot make a backup
    that runs as root read something else.

    Args:
        root: the app folder.
        left_out: paths in it that are not wanted.
        vanished: is told the path of what is gone when its turn comes.

    Raises:
        BackupError: something is neither file nor folder, or its name cannot be written down.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = sorted(set(os.listdir(descriptor)) & {*FILES, *FOLDERS})  # noqa: PTH208  (pathlib takes no descriptor)
        for found in _walk(root, descriptor, "", names, left_out, vanished):
            is_right = found.is_folder == (found.path in FOLDERS)
            if "/" not in found.path and not is_right:
                raise BackupError(f"{root / found.path}: expected a {'file' if found.is_folder else 'folder'}")
            yield found
    finally:
        os.close(descriptor)


def _walk(
    root: Path,
    folder: int,
    prefix: str,
    names: list[str],
    left_out: Collection[str],
    vanished: Callable[[str], object],
) -> Iterator[Found]:
    for name in names:
        path = f"{prefix}{name}"
        if path in left_out or name.startswith(PARTIAL) or (prefix == "sessions/" and name != "data"):
            continue
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            vanished(path)
            continue
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "neither file nor folder"
            raise BackupError(f"{str(root / path)!r}: {kind}, which no backup can hold; move it away")
        if not is_path(path):
            raise BackupError(f"{str(root / path)!r}: a name that is too long, not UTF-8 or not printable; rename it")
        yield Found(path, folder, status)
        if stat.S_ISDIR(status.st_mode):
            try:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                vanished(path)
                continue
            try:
                inside = sorted(os.listdir(below))  # noqa: PTH208  (pathlib takes no descriptor)
                yield from _walk(root, below, f"{path}/", inside, left_out, vanished)
            finally:
                os.close(below)


def sort_key(path: str) -> tuple[str, ...]:
    """The order of files in a backup: by it, whoever reads one sees at once what is there twice."""
    return tuple(path.split("/"))


def is_path(path: str) -> bool:
    """Whether it is relative, stays in its folder, and can be written down."""
    if FORBIDDEN.search(path) or {"", ".", ".."} & set(sort_key(path)):
        return False
    return len(path.encode()) <= LONGEST_PATH


def is_included(path: str) -> bool:
    """Whether a path in the app folder is one that backups hold."""
    top, _, rest = path.partition("/")
    if top == "sessions":
        return rest in ("", "data") or rest.startswith("data/")
    return top in FOLDERS or (not rest and top in (*FILES, POSTGRES))


def left_out(settings: Settings, database: Path | None) -> tuple[set[str], list[str]]:
    """Paths that no backup holds, and a line for each thing that an operator has to keep in another way.

    Args:
        settings: with disks.
        database: the file of the SQLite database in use, if it is one.
    """
    root = settings.app_dir.path.resolve()
    paths = {f"{SQLITE}{suffix}" for suffix in SUFFIXES}
    lines = []
    if database:
        paths |= {_inside(root, Path(f"{database}{suffix}")) or "" for suffix in SUFFIXES}
    if (database is None or database.resolve() != root / SQLITE) and (root / SQLITE).exists():
        lines.append(f"{SQLITE}: a database that the service does not use")
    for name, place in settings.storage.disks.items():
        try:
            url = urlsplit(disk_url(settings, place))
        except InvalidPath as error:
            raise settings.wrong(f"storage.disks.{name}", place, error) from None
        path = _inside(root, Path(unquote(url.path))) if url.scheme == "file" else None
        if not (path and is_included(path)):
            lines.append(f"disk {name}: its files are at {mask('url', url.geturl())}")
    return paths, lines


def _inside(root: Path, path: Path) -> str | None:
    """The path relative to `root`, if it lies in it."""
    path = path.resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else None


def owner(status: os.stat_result) -> tuple[str, str]:
    """The names of a file's user and group; none for those that have no name, or one that no tar can hold."""
    return _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid)


@functools.cache
def _name(look_up: Callable[[int], tuple[Any, ...]], number: int) -> str:
    try:
        name = str(look_up(number)[0])
    except KeyError:
        return ""
    return "" if FORBIDDEN.search(name) or len(name.encode()) > 31 else name
