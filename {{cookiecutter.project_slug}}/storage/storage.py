"""The storage that the service uses, whatever keeps the files."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from storage.backend import Backend, Entry
from storage.errors import NotFound
from storage.file import FileBackend
from storage.memory import MemoryBackend
from storage.paths import normalise


class Storage:
    """Files by relative path, `a/b.txt`, in the place that `url` names: `file:///path` or `memory://`.

    Every path is checked by `storage.paths.normalise`, so every method may raise `InvalidPath`, and `StorageError`
    when the backend fails.

    Raises:
        ValueError: the URL names no backend.
    """

    def __init__(self, url: str) -> None:
        self.backend = _backend(url)

    def write(self, path: str, data: bytes, *, overwrite: bool = True) -> None:
        """Make `data` the file's whole content, all or nothing.

        Raises:
            AlreadyExists: the file exists and `overwrite` is false.
        """
        with self.backend.writer(normalise(path), overwrite=overwrite) as stream:
            stream.write(data)

    def read(self, path: str) -> bytes:
        """The file's content.

        Raises:
            NotFound: there is no such file.
        """
        with self.backend.reader(normalise(path)) as stream:
            return stream.read()

    def read_text(self, path: str) -> str:
        """The file's content as UTF-8 text, line ends unchanged.

        Raises:
            NotFound: there is no such file.
            UnicodeDecodeError: it is not UTF-8.
        """
        return self.read(path).decode()

    def open(self, path: str, mode: Literal["rb", "wb"] = "rb") -> BinaryIO:
        """A binary stream. What is written appears whole when the stream is closed, or not at all.

        Raises:
            NotFound: on reading, there is no such file.
            ValueError: another mode was asked for.
        """
        if mode == "rb":
            return self.backend.reader(normalise(path))
        if mode == "wb":
            return self.backend.writer(normalise(path), overwrite=True)
        raise ValueError(f"mode {mode!r}, expected 'rb' or 'wb'")

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Give a file another path, making folders as needed.

        Raises:
            NotFound: there is no file at `source`.
            AlreadyExists: there is one at `target` and `overwrite` is false.
        """
        self.backend.move(normalise(source), normalise(target), overwrite=overwrite)

    def copy(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Write a file's content to another path as well; raises as `move`."""
        with (
            self.backend.reader(normalise(source)) as reader,
            self.backend.writer(normalise(target), overwrite=overwrite) as writer,
        ):
            shutil.copyfileobj(reader, writer, 1 << 20)

    def remove(self, path: str) -> None:
        """Delete a file.

        Raises:
            NotFound: there is no such file.
        """
        self.backend.remove(normalise(path))

    def remove_tree(self, prefix: str) -> int:
        """Delete all files below a folder; returns how many. The root itself is refused as `InvalidPath`."""
        entries = list(self.backend.walk(normalise(prefix), recursive=True))
        for entry in entries:
            self.backend.remove(entry.path)
        return len(entries)

    def exists(self, path: str) -> bool:
        """Whether there is a file at the path."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def stat(self, path: str) -> Entry:
        """Size, time and tag of a file.

        Raises:
            NotFound: there is no such file.
        """
        return self.backend.stat(normalise(path))

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[Entry]:
        """The files below a folder, sorted by path; those right in it if not `recursive`."""
        return self.backend.walk(normalise(prefix, folder=True), recursive=recursive)

    def check(self) -> None:
        """Raise `StorageError` if files cannot be written now."""
        self.backend.check()


def _backend(url: str) -> Backend:
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return FileBackend(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return MemoryBackend()
    raise ValueError(f"{parts.scheme or 'no'} scheme, expected file:///path or memory://")
