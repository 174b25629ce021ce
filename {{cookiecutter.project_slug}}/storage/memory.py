"""`memory://`: files of this process, for tests."""

import io
import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import accumulate, count
from typing import BinaryIO, cast

from storage.backend import Backend, Entry
from storage.errors import AlreadyExists, NotFound, StorageError


class MemoryBackend(Backend):
    """A dictionary of bytes under a lock. It keeps to what a disk can hold: a file is no folder."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, Entry]] = {}
        self.paths: list[str] = []
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
            del self.paths[bisect_left(self.paths, path)]

    def stat(self, path: str) -> Entry:
        return self._find(path)[1]

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        start = f"{prefix}/" if prefix else ""
        last = start
        while True:
            with self.lock:
                place = bisect_left(self.paths, last)
                path = self.paths[place] if place < len(self.paths) else ""
                entry = self.files[path][1] if path else None
            if entry is None or not path.startswith(start):
                return
            folder, slash, _ = path.removeprefix(start).partition("/")
            if recursive or not slash:
                yield entry
                last = f"{path}\0"
            else:
                last = f"{start}{folder}0"  # 0 follows the slash, so this is behind everything in the folder.

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
        place = bisect_left(self.paths, f"{path}/")
        if place < len(self.paths) and self.paths[place].startswith(f"{path}/"):
            raise StorageError(f"{path}: a folder, expected a file")

    def _set(self, path: str, data: bytes) -> None:
        if path not in self.files:
            insort(self.paths, path)
        self.files[path] = data, Entry(path, len(data), datetime.now(UTC), f"{next(self.versions):x}")
