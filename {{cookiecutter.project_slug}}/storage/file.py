"""`file:///path`: a folder of the local disk."""

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from storage.backend import Backend, Entry
from storage.errors import AlreadyExists, InvalidPath, NotFound, StorageError
from storage.paths import PARTIAL


class FileBackend(Backend):
    """Files below one folder. Links that lead out of it are refused.

    A file is written beside its place, flushed to disk, and then renamed into it: readers see the old file or the
    new one, whatever happens to the writer.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def reader(self, path: str) -> BinaryIO:
        with _errors(path):
            return self._locate(path).open("rb")

    def writer(self, path: str, *, overwrite: bool) -> BinaryIO:
        with _errors(path):
            target = self._prepare(path)
            if not overwrite and target.exists():
                raise AlreadyExists(f"{path}: exists already")
            descriptor, partial = tempfile.mkstemp(prefix=PARTIAL, dir=target.parent)
            return _AtomicWriter(descriptor, Path(partial), target, path, overwrite)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        with _errors(source):
            before = self._locate(source)
            if not before.is_file():
                raise NotFound(f"{source}: no such file")
            _place(before, self._prepare(target), target, overwrite)

    def remove(self, path: str) -> None:
        with _errors(path):
            self._locate(path).unlink()

    def stat(self, path: str) -> Entry:
        with _errors(path):
            place = self._locate(path)
            if not place.is_file():
                raise NotFound(f"{path}: no such file")
            return _entry(path, place.stat())

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        folder = self._locate(prefix) if prefix else self.root
        with _errors(prefix):
            # A folder sorts as its name with the slash behind, so that whole paths come out sorted.
            children = sorted(
                os.scandir(folder) if folder.is_dir() else (),
                key=lambda child: child.name + "/" * child.is_dir(follow_symlinks=False),
            )
        for child in children:
            path = f"{prefix}/{child.name}" if prefix else child.name
            if child.is_dir(follow_symlinks=False):
                if recursive:
                    yield from self.walk(path, recursive=True)
            elif child.is_file(follow_symlinks=False) and not child.name.startswith(PARTIAL):
                try:
                    status = child.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # It was removed since the folder was read.
                yield _entry(path, status)

    def check(self) -> None:
        with _errors(""):
            self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
            if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
                raise StorageError(f"{self.root}: not writable")

    def _locate(self, path: str) -> Path:
        place = self.root / path
        if not os.path.realpath(place).startswith(os.path.realpath(self.root) + os.sep):
            raise InvalidPath(f"{path}: a link leads out of the storage")
        return place

    def _prepare(self, path: str) -> Path:
        """The place of a file that is about to be there, in a folder that exists."""
        place = self._locate(path)
        try:
            place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StorageError(f"{path}: a file stands where a folder is needed") from None
        if place.is_dir():
            raise StorageError(f"{path}: a folder, expected a file")
        return place


class _AtomicWriter(io.BufferedWriter):
    """A stream that puts its file in place when it is closed, and leaves nothing when it fails or is forgotten."""

    def __init__(self, descriptor: int, partial: Path, target: Path, path: str, overwrite: bool) -> None:
        super().__init__(io.FileIO(descriptor, "wb"))
        self.partial, self.target, self.path, self.overwrite = partial, target, path, overwrite
        os.fchmod(descriptor, 0o640)

    def write(self, data: Any) -> int:
        with _errors(self.path):
            return super().write(data)

    def close(self) -> None:
        """Put the file in its place."""
        if self.closed:
            return
        try:
            with _errors(self.path):
                self.flush()
                os.fsync(self.fileno())
                self.raw.close()
                _place(self.partial, self.target, self.path, self.overwrite)
        finally:
            self._discard()

    def _discard(self) -> None:
        self.raw.close()
        self.partial.unlink(missing_ok=True)

    def __del__(self) -> None:
        self._discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            self._discard()
        else:
            self.close()


def _place(source: Path, target: Path, path: str, overwrite: bool) -> None:
    if overwrite:
        os.replace(source, target)
    else:
        # Unlike rename, link fails when somebody else was faster.
        try:
            os.link(source, target)
        except FileExistsError:
            raise AlreadyExists(f"{path}: exists already") from None
        os.unlink(source)


def _entry(path: str, status: os.stat_result) -> Entry:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return Entry(path, status.st_size, modified, f"{status.st_mtime_ns:x}-{status.st_size:x}")


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFound(f"{path}: no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidPath(f"{path}: a link leads in circles") from None
        raise StorageError(f"{path}: {error.strerror}") from None
