"""What a backend has to do. Paths that reach it are normalised; see `storage.paths`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO


@dataclass(frozen=True)
class Entry:
    """A file in a storage: its path, its size in bytes, when it was written (UTC), and a tag that changes with it."""

    path: str
    size: int
    modified: datetime
    etag: str


class Backend(ABC):
    """Files by path. Every method raises the errors of `storage.errors` and no others."""

    @abstractmethod
    def reader(self, path: str) -> BinaryIO:
        """A stream of the file's bytes."""

    @abstractmethod
    def writer(self, path: str, *, overwrite: bool) -> BinaryIO:
        """A stream whose bytes become the file when it is closed, and vanish when it is closed by an exception."""

    @abstractmethod
    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        """Give a file another path."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file."""

    @abstractmethod
    def stat(self, path: str) -> Entry:
        """What is known of a file without reading it."""

    @abstractmethod
    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        """The files below a folder, sorted by path."""

    @abstractmethod
    def check(self) -> None:
        """Raise if files cannot be written now."""
