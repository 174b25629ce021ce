"""The storage that the service uses, whatever keeps the files."""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from storage.errors import InvalidPath, NotFound, StorageError
from storage.local import LocalBackend
from storage.paths import Entry, normalise

if TYPE_CHECKING:
    from storage.objects import ObjectBackend

logger = logging.getLogger(__name__)

LONGEST_LINK = timedelta(days=7)
# What a full or broken disk answers. Other errors of the system are those of a `with` block itself.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Storage:
    """Files by relative path, `a/b.txt`, in the place that `url` names.

    Every method may raise `InvalidPath`, `PermissionDenied`, and `StorageError` when the backend fails.

    Args:
        url: `file:///path`, `memory://`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; the
            options of an object store come after a `?`.
        link: makes a link to a file, from its path and the time until it expires, for backends that serve none.

    Raises:
        ValueError: the URL names no backend, or has an option that the backend does not know.
    """

    def __init__(self, url: str, *, link: Callable[[str, timedelta], str] | None = None) -> None:
        self.backend = _backend(url)
        self._link = link

    def read(self, path: str) -> bytes:
        """The file's content; raises `NotFound`."""
        return self.backend.read(normalise(path))

    def reader(self, path: str) -> BinaryIO:
        """A stream of the file's content, which can seek and shows one version of the file; raises `NotFound`."""
        return self.backend.reader(normalise(path))

    def write(self, path: str, data: bytes, *, overwrite: bool = True) -> None:
        """Make `data` the file's whole content, or change nothing; raises `AlreadyExists`."""
        with self.writer(path, overwrite=overwrite) as stream:
            stream.write(data)

    @contextmanager
    def writer(self, path: str, *, overwrite: bool = True) -> Iterator[BinaryIO]:
        """A stream that becomes the file at the end of its `with` block; an exception in the block changes nothing.

        Raises `AlreadyExists` at the end of the block.
        """
        path = normalise(path)
        try:
            with self.backend.writer(path, overwrite=overwrite) as stream:
                yield stream
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise StorageError(f"{path}: {error.strerror}") from None

    def copy(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Give a file's content to another path as well; raises `NotFound` and `AlreadyExists`."""
        self.backend.copy(normalise(source), normalise(target), overwrite=overwrite)

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Give a file another path; raises `NotFound` and `AlreadyExists`."""
        self.backend.move(normalise(source), normalise(target), overwrite=overwrite)

    def remove(self, path: str) -> None:
        """Delete a file; raises `NotFound`."""
        self.backend.remove(normalise(path))

    def exists(self, path: str) -> bool:
        with suppress(NotFound):
            self.stat(path)
            return True
        return False

    def stat(self, path: str) -> Entry:
        """Size, time and tag of a file; raises `NotFound`."""
        return self.backend.stat(normalise(path))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """The files below a folder, sorted by path, without those that other programs gave a name that is no path."""
        return filter(_has_path, self.backend.list(normalise(prefix, folder=True)))

    def url(self, path: str, *, expires: timedelta) -> str:
        """A link by which everyone who has it can read the file until it expires, in seven days at most.

        Raises `ValueError` for another time, and `StorageError` if neither the backend nor the service makes links.
        """
        if not timedelta() < expires <= LONGEST_LINK:
            raise ValueError(f"expires {expires}, expected more than nothing and at most {LONGEST_LINK}")
        path = normalise(path)
        if link := self.backend.url(path, expires) or (self._link and self._link(path, expires)):
            return link
        raise StorageError(f"{path}: this storage makes no links")

    def check(self) -> None:
        """Raise `StorageError` if files cannot be written now; an object store is only asked for a listing."""
        self.backend.check()


def _has_path(entry: Entry) -> bool:
    with suppress(InvalidPath):
        if normalise(entry.path) == entry.path:
            return True
    logger.warning("left out of a listing, since it is no path: %r", entry.path)
    return False


def _backend(url: str) -> "LocalBackend | ObjectBackend":
    parts = urlsplit(url)
    path = unquote(parts.path)
    # A plus sign stands for itself: keys hold it.
    options = dict(parse_qsl(parts.query.replace("+", "%2B"), True))
    is_object_store = parts.scheme in ("s3", "gs", "az") and parts.netloc
    if parts.fragment:
        raise ValueError("a `#` in a name or a password has to be written %23")
    if parts.query and not is_object_store:
        raise ValueError("found options after `?`, which only object stores have")
    if parts.scheme == "file" and path.startswith("/") and not parts.netloc:
        return LocalBackend(path)
    if is_object_store or parts.scheme == "memory":
        # The library is large, and most services do without.
        from storage.objects import ObjectBackend

        return ObjectBackend(parts.scheme, parts.netloc, path.strip("/"), options)
    expected = "file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    raise ValueError(f"{parts.scheme or 'no'} scheme, expected {expected}")
