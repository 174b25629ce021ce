"""What a backend has to do. Paths that reach it are normalised; see `storage.paths`."""

import io
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import IO, Any, BinaryIO, NamedTuple, Self, cast

from storage.errors import AlreadyExists, NotFound, StorageError

# How much of a stream is held in memory at a time, in bytes.
CHUNK = 1 << 20
# Larger files wait on the local disk, instead of in memory, until they are whole.
SPOOL = 8 << 20
# A folder that others empty and remove again and again shall not keep a writer busy for ever.
ATTEMPTS = 100
# What writers have left that were killed is known by its age where nothing else tells.
ABANDONED = timedelta(days=1)


class Entry(NamedTuple):
    """A file in a storage: its path, its size in bytes, when it was written (UTC), and a tag that changes with it."""

    path: str
    size: int
    modified: datetime
    etag: str


class Backend(ABC):
    """Files by path. Every method raises the errors of `storage.errors` and no others."""

    def read(self, path: str) -> bytes:
        """The file's content."""
        with self.reader(path) as stream:
            return stream.read()

    @abstractmethod
    def reader(self, path: str) -> BinaryIO:
        """A seekable stream of the bytes that the file has now, whoever replaces it meanwhile."""

    def writer(self, path: str, *, overwrite: bool) -> "Draft":
        """A stream that becomes the file when it is closed."""
        if not overwrite and self.exists(path):
            raise AlreadyExists(f"{path}: exists already")
        return self.draft(path, overwrite=overwrite)

    def draft(self, path: str, *, overwrite: bool) -> "Draft":
        """As `writer`, which has looked already whether there is such a file."""
        file = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115

        def commit() -> None:
            size = file.tell()
            file.seek(0)
            self.put(path, cast("BinaryIO", file), size, overwrite=overwrite)
            file.close()

        return Draft(path, file, commit, file.close, self.errors)

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        """Make `file`, which is `size` bytes long, the file at once. Only what has a `draft` of its own has none."""
        raise NotImplementedError

    @abstractmethod
    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        """Give a file another path."""

    def copy(self, source: str, target: str, *, overwrite: bool) -> None:
        """Give a file's content to another path as well."""
        with self.reader(source) as reader, self.writer(target, overwrite=overwrite) as writer:
            shutil.copyfileobj(reader, writer, CHUNK)

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file, and the folders that are empty without it."""

    def remove_all(self, paths: Iterable[str]) -> int:
        """Delete files, those that are not there left out; returns how many paths were given."""
        count = 0
        for path in paths:
            count += 1
            with suppress(NotFound):
                self.remove(path)
        return count

    def exists(self, path: str) -> bool:
        """Whether there is a file at the path."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    @abstractmethod
    def stat(self, path: str) -> Entry:
        """What is known of a file without reading it."""

    @abstractmethod
    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        """The files below a folder, sorted by path."""

    @abstractmethod
    def check(self) -> None:
        """Raise if files cannot be written now, as far as that can be told without writing any."""

    def url(self, path: str, expires: timedelta) -> str | None:
        """A link that the backend itself serves; None if it serves none."""
        return None

    @abstractmethod
    def errors(self, path: str) -> AbstractContextManager[object]:
        """Turns the exceptions of what is below into those of `storage.errors`."""


class Draft(io.BufferedIOBase, BinaryIO):
    """What a file will hold. Closing it makes it the file.

    A failed write, an exception in its `with` block, or being forgotten leave the old file as it was. In a block, only
    its end counts, and `close` does nothing: a wrapper such as TextIOWrapper closes what it wraps even when it fails.

    Args:
        path: the file's, for errors.
        file: where the bytes wait.
        commit: makes them the file, and cleans up.
        discard: cleans up instead, also after a commit that has failed.
        errors: the backend's.
    """

    def __init__(
        self,
        path: str,
        file: IO[bytes],
        commit: Callable[[], None],
        discard: Callable[[], None],
        errors: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        super().__init__()
        self.path, self.file = path, file
        self._commit, self._discard, self._errors = commit, discard, errors
        self.failed = self.is_entered = False

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def write(self, data: Any) -> int:
        """Add bytes; returns how many."""
        self._checkClosed()
        self.failed = True
        with self._errors(self.path):
            count = self.file.write(data)
        self.failed = False
        return count

    def close(self) -> None:
        """Make what was written the file, unless a write has failed before."""
        if self.closed or self.is_entered:
            return
        super().close()
        try:
            if self.failed:
                raise StorageError(f"{self.path}: not written, because a write before has failed")
            with self._errors(self.path):
                self._commit()
        except BaseException:
            self._discard()
            raise

    def discard(self) -> None:
        """Leave the file as it is."""
        if not self.closed:
            super().close()
            self._discard()

    def __enter__(self) -> Self:
        self.is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_entered = False
        if kind:
            self.discard()
        else:
            self.close()

    def __del__(self) -> None:
        self.discard()


class RemoteFile(io.RawIOBase):
    """A file of another machine, `size` bytes long, that is read in pieces."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.position = 0

    def fetch(self, count: int) -> bytes:
        """At least one and at most `count` of the bytes from `position` on, where there are any."""
        raise NotImplementedError

    def buffered(self) -> BinaryIO:
        """The stream as callers get it."""
        return cast("BinaryIO", io.BufferedReader(self, CHUNK))

    def readable(self) -> bool:
        """It is for reading only."""
        return True

    def seekable(self) -> bool:
        """Any byte can be read next."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with the next bytes; returns how many."""
        data = self.fetch(len(buffer)) if self.position < self.size else b""
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """All remaining bytes, in pieces larger than Python's own."""
        return b"".join(iter(lambda: self.read(CHUNK), b""))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another place; returns it."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        if position < 0:
            raise ValueError(f"position {position}, expected 0 or more")
        self.position = position
        return position
