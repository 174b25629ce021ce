"""What a backend has to do. Paths that reach it are normalised; see `storage.paths`."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from typing import BinaryIO, NamedTuple, cast

from storage.errors import AlreadyExists, NotFound
from storage.streams import CHUNK, Draft

# Larger files wait on the local disk, instead of in memory, until they are whole.
SPOOL = 6 << 20
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

    def writer(self, path: str, *, overwrite: bool) -> Draft:
        """A stream that becomes the file when it is closed."""
        if not overwrite and self.exists(path):
            raise AlreadyExists(f"{path}: exists already")
        return self.draft(path, overwrite=overwrite)

    def draft(self, path: str, *, overwrite: bool) -> Draft:
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
