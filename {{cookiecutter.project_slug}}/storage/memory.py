"""`memory://`: files of this process, for tests."""

import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import BinaryIO

from storage.backend import Backend, Entry
from storage.errors import AlreadyExists, NotFound


class MemoryBackend(Backend):
    """A dictionary of bytes under a lock."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, datetime]] = {}
        self.lock = threading.Lock()

    def reader(self, path: str) -> BinaryIO:
        return io.BytesIO(self._find(path)[0])

    def writer(self, path: str, *, overwrite: bool) -> BinaryIO:
        if not overwrite and path in self.files:
            raise AlreadyExists(f"{path}: exists already")
        return _Writer(self, path, overwrite)

    def store(self, path: str, data: bytes, *, overwrite: bool) -> None:
        """Make `data` the file, in one step."""
        with self.lock:
            if not overwrite and path in self.files:
                raise AlreadyExists(f"{path}: exists already")
            self.files[path] = data, datetime.now(UTC)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        with self.lock:
            found = self._find(source)
            if not overwrite and target in self.files:
                raise AlreadyExists(f"{target}: exists already")
            del self.files[source]
            self.files[target] = found

    def remove(self, path: str) -> None:
        with self.lock:
            self._find(path)
            del self.files[path]

    def stat(self, path: str) -> Entry:
        data, modified = self._find(path)
        return Entry(path, len(data), modified, hashlib.sha256(data).hexdigest()[:32])

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        start = f"{prefix}/" if prefix else ""
        for path in sorted(self.files):
            if path.startswith(start) and (recursive or "/" not in path.removeprefix(start)):
                with suppress(NotFound):  # It was removed since the list was made.
                    yield self.stat(path)

    def check(self) -> None:
        """Memory is always there."""

    def _find(self, path: str) -> tuple[bytes, datetime]:
        try:
            return self.files[path]
        except KeyError:
            raise NotFound(f"{path}: no such file") from None


class _Writer(io.BytesIO):
    """Stores its bytes when it is closed, unless an exception closes it or nobody does."""

    def __init__(self, backend: MemoryBackend, path: str, overwrite: bool) -> None:
        super().__init__()
        self.backend, self.path, self.overwrite = backend, path, overwrite
        self.failed = False

    def close(self) -> None:
        """Make what was written the file."""
        if not self.closed:
            data = self.getvalue()
            super().close()
            if not self.failed:
                self.backend.store(self.path, data, overwrite=self.overwrite)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed = kind is not None
        self.close()

    def __del__(self) -> None:
        """Without this, Python would close the stream."""
