"""`memory://`: files of this process, for tests."""

import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from itertools import accumulate, count
from typing import BinaryIO, cast

from storage.backend import Backend, Entry
from storage.errors import AlreadyExists, NotFound, StorageError


class MemoryBackend(Backend):
    """A dictionary of bytes under a lock. It keeps to what a disk can hold: a file is no folder."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, Entry]] = {}
        self.versions = count()
        self.lock = threading.RLock()

    def reader(self, path: str) -> BinaryIO:
        return io.BufferedReader(cast("io.RawIOBase", io.BytesIO(self._find(path)[0])))

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        with self.lock:
            self._check_target(path, overwrite=overwrite)
            self._set(path, file.read())

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        with self.lock:
            data, _ = self._find(source)
            self._check_target(target, overwrite=overwrite)
            self.remove(source)
            self._set(target, data)

    def remove(self, path: str) -> None:
        with self.lock:
            self._find(path)
            del self.files[path]

    def stat(self, path: str) -> Entry:
        return self._find(path)[1]

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        start = f"{prefix}/" if prefix else ""
        with self.lock:
            paths = sorted(path for path in self.files if path.startswith(start))
        for path in paths:
            if recursive or "/" not in path.removeprefix(start):
                with suppress(NotFound):  # It was removed since the list was made.
                    yield self.stat(path)

    def check(self) -> None:
        """Memory is always there."""

    def errors(self, path: str) -> nullcontext[None]:
        return nullcontext()

    def _find(self, path: str) -> tuple[bytes, Entry]:
        try:
            return self.files[path]
        except KeyError:
            raise NotFound(f"{path}: no such file") from None

    def _check_target(self, path: str, *, overwrite: bool) -> None:
        if not overwrite and path in self.files:
            raise AlreadyExists(f"{path}: exists already")
        *folders, _ = accumulate(path.split("/"), "{}/{}".format)
        if any(folder in self.files for folder in folders):
            raise StorageError(f"{path}: a file stands where a folder is needed")
        if path not in self.files and any(other.startswith(f"{path}/") for other in self.files):
            raise StorageError(f"{path}: a folder, expected a file")

    def _set(self, path: str, data: bytes) -> None:
        self.files[path] = data, Entry(path, len(data), datetime.now(UTC), f"{next(self.versions):x}")
