"""The streams of backends: what is being written, and what is read from another machine."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Any, BinaryIO, Self, cast

from storage.errors import StorageError

# How much of a stream is held in memory at a time, in bytes.
CHUNK = 1 << 20


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
