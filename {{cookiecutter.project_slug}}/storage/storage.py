"""The storage that the service uses, whatever keeps the files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from storage.backend import Backend, Entry
from storage.errors import StorageError
from storage.file import FileBackend
from storage.memory import MemoryBackend
from storage.paths import normalise

LONGEST_LINK = timedelta(days=7)
SCHEMES = "file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or sftp://host/path"


class Storage:
    """Files by relative path, `a/b.txt`, in the place that `url` names.

    Every path is checked by `storage.paths.normalise`, so every method may raise `InvalidPath`; every method may raise
    `PermissionDenied`, and `StorageError` when the backend fails.

    Args:
        url: `file:///path`, `memory://`, `s3://bucket/prefix`, `gs://…`, `az://…` or `sftp://user@host/path`; options
            of the backend stand behind a `?`.
        link: makes a link to a file, from its path and the time until it expires, for backends that serve none.

    Raises:
        ValueError: the URL names no backend, or has an option that the backend does not know.
    """

    def __init__(self, url: str, *, link: Callable[[str, timedelta], str] | None = None) -> None:
        self.backend = _backend(url)
        self._link = link

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
        return self.backend.read(normalise(path))

    def read_text(self, path: str) -> str:
        """The file's content as UTF-8 text, line ends unchanged.

        Raises:
            NotFound: there is no such file.
            UnicodeDecodeError: it is not UTF-8.
        """
        return self.read(path).decode()

    def open(self, path: str, mode: Literal["rb", "wb"] = "rb", *, overwrite: bool = True) -> BinaryIO:
        """A binary stream. What is written appears whole when the stream is closed, or not at all.

        A stream for reading shows one version of the file, and can seek. In a `with` block, a stream for writing is
        closed by the block's end alone, and an exception in the block leaves the old file.

        Raises:
            NotFound: on reading, there is no such file.
            AlreadyExists: on writing, when it is opened or closed: the file exists and `overwrite` is false.
            ValueError: another mode was asked for.
        """
        if mode == "rb":
            return self.backend.reader(normalise(path))
        if mode == "wb":
            return self.backend.writer(normalise(path), overwrite=overwrite)
        raise ValueError(f"mode {mode!r}, expected 'rb' or 'wb'")

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Give a file another path, making folders as needed.

        Raises:
            NotFound: there is no file at `source`.
            AlreadyExists: there is one at `target` and `overwrite` is false.
        """
        self.backend.move(normalise(source), normalise(target), overwrite=overwrite)

    def copy(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Give a file's content to another path as well; raises as `move`."""
        self.backend.copy(normalise(source), normalise(target), overwrite=overwrite)

    def remove(self, path: str) -> None:
        """Delete a file.

        Raises:
            NotFound: there is no such file.
        """
        self.backend.remove(normalise(path))

    def remove_tree(self, prefix: str) -> int:
        """Delete all files below a folder; returns how many. The root itself is refused as `InvalidPath`."""
        return self.backend.remove_all(entry.path for entry in self.backend.walk(normalise(prefix), recursive=True))

    def exists(self, path: str) -> bool:
        """Whether there is a file at the path."""
        return self.backend.exists(normalise(path))

    def stat(self, path: str) -> Entry:
        """Size, time and tag of a file.

        Raises:
            NotFound: there is no such file.
        """
        return self.backend.stat(normalise(path))

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[Entry]:
        """The files below a folder, sorted by path; those right in it if not `recursive`."""
        return self.backend.walk(normalise(prefix, folder=True), recursive=recursive)

    def url(self, path: str, *, expires: timedelta) -> str:
        """A link by which whoever has it can read the file until it expires. The file need not be there yet.

        Args:
            path: the file's.
            expires: how long the link may work, seven days at most: S3 allows no more.

        Raises:
            ValueError: that time is too long or over.
            StorageError: neither the backend nor the service makes links.
        """
        if not timedelta() < expires <= LONGEST_LINK:
            raise ValueError(f"expires {expires}, expected more than nothing and at most {LONGEST_LINK}")
        path = normalise(path)
        if link := self.backend.url(path, expires):
            return link
        if self._link:
            return self._link(path, expires)
        raise StorageError(f"{path}: this storage makes no links")

    def check(self) -> None:
        """Raise `StorageError` if files cannot be written now; an object store is only asked for a listing."""
        self.backend.check()


def _backend(url: str) -> Backend:
    parts = urlsplit(url)
    try:
        # A plus sign stands for itself: keys hold it.
        options = dict(parse_qsl(parts.query.replace("+", "%2B"), True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError("the options behind `?` are no list of name=value with & between them") from None
    if parts.fragment:
        raise ValueError("a `#` in a name or a password has to be written %23")
    path = unquote(parts.path)
    if parts.scheme in ("s3", "gs", "az") and parts.netloc:
        with _library("s3"):
            from storage.object_store import ObjectStoreBackend
        return ObjectStoreBackend(parts.scheme, parts.netloc, path.strip("/"), options)
    if parts.scheme == "sftp" and parts.hostname and path.startswith("/"):
        with _library("sftp"):
            from storage.sftp import SftpBackend
        _require_known(options, SftpBackend.OPTIONS)
        return SftpBackend(parts, options)
    if parts.scheme == "file" and path.startswith("/") and not parts.netloc:
        _require_known(options, FileBackend.OPTIONS)
        return FileBackend(Path(path), options)
    if parts.scheme == "memory":
        _require_known(options, ())
        return MemoryBackend()
    raise ValueError(f"{parts.scheme or 'no'} scheme, expected {SCHEMES}")


def _require_known(options: dict[str, str], known: tuple[str, ...]) -> None:
    if unknown := options.keys() - set(known):
        raise ValueError(f"unknown option {', '.join(sorted(unknown))}; expected {' or '.join(known) or 'none'}")


@contextmanager
def _library(extra: str) -> Iterator[None]:
    """Around the import of a backend whose library the service has only if it asked for it."""
    try:
        yield
    except ModuleNotFoundError as error:
        command = f"make add PACKAGE={error.name} && make setup"
        raise ValueError(f"it needs {error.name}, of the extra {extra}; run: {command}") from None
