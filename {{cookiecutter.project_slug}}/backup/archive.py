"""Backups of the app folder and the database, and restoring them.

A backup copies the database first and the files afterwards. Files are written before the row that names them is
committed, never changed, and removed a day after that row is gone: so every file that the copy names is in the backup.
"""

import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, BinaryIO

from backup.databases import BackupError, copy_database, database_url, restore_database
from config import PARTS, Settings, load, project_version

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 28
SQLITE, POSTGRES = "data/app.sqlite3", "database.dump"
PARTIAL = ".partial-"
DAY = 24 * 3600
TOP = (".env", *(name for name, part in PARTS.items() if part.in_backups))


def create(settings: Settings, folder: Path | None = None) -> Path:
    """Write a backup into `folder`, all or nothing, and read it back; then remove old ones, so that `backup.keep` stay.

    Raises `BackupError` if it could not be done. Without `folder`, the settings say where it goes.
    """
    folder, now = folder or settings.app_dir.path / settings.backup.folder, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    path = folder / f"{settings.app.slug}-{now}.tar.gz"
    partial = folder / f"{PARTIAL}{path.name}"
    with _one_line(path), partial.open("xb") as file:
        try:
            os.fchmod(file.fileno(), 0o600)
            write(settings, file)
            file.flush()
            os.fsync(file.fileno())
            verify(partial, settings)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    # What is dated later than now was made by a clock that was wrong: it goes first.
    others = sorted(backups_in(folder, settings), key=lambda other: (other.name <= path.name, other.name))
    for old in others[: -settings.backup.keep]:
        old.unlink(missing_ok=True)
    for left in folder.glob(f"{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > DAY:  # Its backup was killed.
            left.unlink(missing_ok=True)
    return path


def backups_in(folder: Path, settings: Settings) -> list[Path]:
    """The backups of this application in a folder, oldest first."""
    return sorted(folder.glob(f"{settings.app.slug}-????????T??????Z.tar.gz"))


def write(settings: Settings, file: BinaryIO) -> None:
    """Write a backup into a stream, which may be that of a program that encrypts it or sends it elsewhere."""
    root, url = settings.app_dir.path, database_url(settings)
    hashes: dict[str, str] = {}
    about = {"slug": settings.app.slug, "version": project_version(), "created": datetime.now(UTC).isoformat()}
    with _one_line(root), TemporaryDirectory(dir=root / "work") as work, tarfile.open(fileobj=file, mode="w|gz") as tar:
        copy = Path(work, "copy")
        copy_database(url, copy)
        _add(tar, copy, SQLITE if url.get_backend_name() == "sqlite" else POSTGRES, hashes)
        for place in (inner for name in TOP for inner in _walk(root / name)):
            name = str(place.relative_to(root))
            # Of the database only the copy; of files only whole ones.
            if not name.startswith(SQLITE) and not place.name.startswith(PARTIAL):
                _add(tar, place, name, hashes)
        manifest = Path(work, "manifest")
        manifest.write_text(json.dumps({**about, "files": hashes}), encoding="utf-8")
        _add(tar, manifest, MANIFEST, {})


def _walk(place: Path) -> Iterator[Path]:
    """A file, or a folder and what is in it. Links are left out: they lead to what is not part of the app folder."""
    if place.is_symlink() or not (place.is_file() or place.is_dir()):
        return
    yield place
    if place.is_dir():
        for inner in sorted(place.iterdir()):
            yield from _walk(inner)


def _add(tar: tarfile.TarFile, place: Path, name: str, hashes: dict[str, str]) -> None:
    try:
        if place.is_dir():
            tar.addfile(tar.gettarinfo(place, name))
            return
        with place.open("rb") as file:
            measured = _Measured(file)
            tar.addfile(tar.gettarinfo(arcname=name, fileobj=file), measured)  # type: ignore[arg-type]
            hashes[name] = measured.hash.hexdigest()
    except FileNotFoundError:
        pass  # It was removed since its folder was read, a day after its row.


class _Measured:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.hash.update(data)
        return data


def verify(path: Path, settings: Settings, into: Path | None = None) -> dict[str, Any]:
    """Read a backup to its end and compare it with its manifest, which is returned; unpack it, if `into` is given.

    Raises:
        BackupError: it is damaged, altered, or no backup of this application.
    """
    hashes: dict[str, str] = {}
    manifest: dict[str, Any] = {}
    with _one_line(path), gzip.open(path) as content, tarfile.open(fileobj=content, mode="r|") as tar:
        for member in tar:
            top, *below = member.name.split("/")
            is_ours = (top in TOP and ".." not in below) or member.name in (MANIFEST, POSTGRES)
            is_new = not manifest and member.name not in hashes
            if not is_ours or not is_new or not (member.isfile() or member.isdir()):
                raise BackupError(f"{path}: {member.name!r} does not belong in a backup")
            if member.name == MANIFEST:
                if (file := tar.extractfile(member)) is None or member.size > LARGEST_MANIFEST:
                    raise BackupError(f"{path}: the manifest is too large")
                manifest = json.load(file)
                continue
            if into:
                # The filter of PEP 706 would do this and the check of names; the Python of Debian 12 has none.
                tar.extract(member, into, set_attrs=False)
            if into and member.isfile():
                (into / member.name).chmod(member.mode & 0o750 | 0o600)
                os.utime(into / member.name, (member.mtime, member.mtime))
            if member.isfile():
                source: Any = (into / member.name).open("rb") if into else tar.extractfile(member)
                with source:
                    hashes[member.name] = hashlib.file_digest(source, "sha256").hexdigest()
        while content.read(1 << 20):  # To its end, where gzip has the sum of all that was read.
            pass
        found = manifest["slug"]
        if found != settings.app.slug:
            raise BackupError(f"{path}: a backup of {found!r}, expected one of {settings.app.slug!r}")
        if wrong := {name for name, _ in hashes.items() ^ manifest["files"].items()}:
            raise BackupError(f"{path}: {min(wrong)!r} is not what the manifest says")
    return manifest


def restore(path: Path, folder: Path, settings: Settings) -> None:
    """Make an app folder of a backup: there when it is whole, or not at all; fill the PostgreSQL that it names.

    Raises:
        BackupError: it is no such backup, or not whole, or `folder` or the database is in use.
    """
    with _one_line(folder):
        if folder.exists() and any(folder.iterdir()):
            raise BackupError(f"{folder}: is not empty; name a folder that is empty or not there")
        partial = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            verify(path, settings, into=partial)
            own = load({**os.environ, "APP_DIR": str(partial)})
            dump = partial / POSTGRES
            restore_database(database_url(own), dump if dump.exists() else partial / SQLITE)
            dump.unlink(missing_ok=True)
            own.app_dir.make()
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, KeyError, TypeError, ValueError) as error:
        raise BackupError(f"{path}: not a backup, or damaged: {error}") from None
    except sqlite3.Error as error:
        raise BackupError(f"{path}: the database: {error}") from None
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror or error}") from None
