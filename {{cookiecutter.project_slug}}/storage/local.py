"""`file:///path`: a folder of this machine."""

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, TypeVar

from storage.errors import AlreadyExists, InvalidPath, NotFound, PermissionDenied, StorageError
from storage.paths import LONGEST_PATH, PARTIAL, Entry

T = TypeVar("T")

FILE_MODE, FOLDER_MODE = 0o640, 0o750
# A folder that is removed again and again must not keep a writer busy for ever.
ATTEMPTS = 100
# Linux tells where an open file really is, so that what is checked is what is read.
OPEN_FILES = "/proc/self/fd" if Path("/proc/self/fd").is_dir() else None


class LocalBackend:
    """Files below one folder. Links that lead out of it are refused.

    A file is written beside its place, flushed to disk and then renamed: readers see the old file or the new one,
    whatever happens to the writer. Folders come and go with the files in them.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(os.path.realpath(root))
        self.inside = f"{str(self.root).rstrip('/')}/"

    def read(self, path: str) -> bytes:
        # For small files, this takes half as long as a stream.
        try:
            descriptor = self._open(path)
            try:
                return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._error(path, error) from None

    def reader(self, path: str) -> BinaryIO:
        with self._errors(path):
            return os.fdopen(self._open(path), "rb")

    @contextmanager
    def writer(self, path: str, *, overwrite: bool) -> Iterator[BinaryIO]:
        place = self._place(path)
        partial = place.with_name(PARTIAL + secrets.token_hex(16))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with self._errors(path):
            descriptor = self._with_folder(path, lambda: os.open(partial, flags, FILE_MODE))
        try:
            # The block may close the stream, as a TextIOWrapper does, before its bytes are on disk.
            with os.fdopen(descriptor, "wb", closefd=False) as stream:
                yield stream
            with self._errors(path):
                os.fsync(descriptor)
                self._with_folder(path, lambda: _rename(partial, place, path, overwrite=overwrite))
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            self._remove_empty_folders(path)
            raise
        finally:
            os.close(descriptor)

    def copy(self, source: str, target: str, *, overwrite: bool) -> None:
        with self._errors(target), self.reader(source) as reader, self.writer(target, overwrite=overwrite) as writer:
            shutil.copyfileobj(reader, writer)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        file, place = self._file(source), self._place(target)
        with self._errors(source):
            try:
                self._with_folder(target, lambda: _rename(self._file(source), place, target, overwrite=overwrite))
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # A part of the tree lies on another file system.
                self.copy(source, target, overwrite=overwrite)
                file.unlink()
        self._remove_empty_folders(source)

    def remove(self, path: str) -> None:
        with self._errors(path):
            self._file(path).unlink()
        self._remove_empty_folders(path)

    def stat(self, path: str) -> Entry:
        with self._errors(path), os.fdopen(self._open(path), "rb", 0) as file:
            return _entry(path, os.fstat(file.fileno()))

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._errors(prefix or "."):
            try:
                with os.scandir(self._place(prefix)) as children:
                    # Folders have the slash behind them, so that whole paths sort.
                    names = sorted(child.name + "/" * child.is_dir(follow_symlinks=False) for child in children)
            except (FileNotFoundError, NotADirectoryError):
                return
            for name in names:
                path = f"{prefix}/{name}" if prefix else name
                if name.endswith("/"):
                    # No path is longer, however deep other programs have made their folders.
                    if len(path) <= LONGEST_PATH:
                        yield from self.list(path[:-1])
                    continue
                with suppress(FileNotFoundError):  # It was removed since its folder was read.
                    status = os.lstat(self.inside + path)
                    if stat.S_ISREG(status.st_mode) and not name.startswith(PARTIAL):
                        yield _entry(path, status)

    def check(self) -> None:
        with self._errors(str(self.root)):
            try:
                self.root.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise StorageError(f"{self.root}: a file stands where a folder is needed") from None
            if not os.access(self.root, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "Permission denied")

    def url(self, path: str, expires: timedelta) -> str | None:
        return None

    def _open(self, path: str) -> int:
        # A FIFO would wait for its writer without O_NONBLOCK.
        descriptor = os.open(self.inside + path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._require_inside(path, os.readlink(f"{OPEN_FILES}/{descriptor}") if OPEN_FILES else None)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_inside(self, path: str, real: str | None = None) -> None:
        real = real or os.path.realpath(self.inside + path)
        if not f"{real}/".startswith(self.inside):
            raise InvalidPath(f"{path}: a link leads out of the storage")

    def _place(self, path: str) -> Path:
        self._require_inside(path)
        return self.root / path

    def _file(self, path: str) -> Path:
        """The place of a file, if there is one."""
        with self._errors(path):
            os.close(self._open(path))
            return self.root / path

    def _with_folder(self, path: str, act: Callable[[], T]) -> T:
        """Call `act`, which needs the folder that `path` lies in. It is made if it is missing, or has just gone."""
        for _ in range(ATTEMPTS):
            try:
                return act()
            except FileNotFoundError:
                # `mkdir` takes a folder that goes while it looks for a file.
                with suppress(FileNotFoundError, FileExistsError):
                    self._place(path).parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            except NotADirectoryError:
                raise StorageError(f"{path}: a file stands where a folder is needed") from None
        raise StorageError(f"{path}: cannot be made; the file system may not allow such a name")

    def _remove_empty_folders(self, path: str) -> None:
        with suppress(OSError):
            while path := path.rpartition("/")[0]:
                (self.root / path).rmdir()

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(path, error) from None

    def _error(self, path: str, error: OSError) -> StorageError:
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            self._require_inside(path)
            return NotFound(f"{path}: no such file")
        kind = PermissionDenied if isinstance(error, PermissionError) else StorageError
        return kind(f"{path}: {error.strerror}")


def _rename(source: Path, target: Path, path: str, *, overwrite: bool) -> None:
    """Give a file its place, which is that of `path`."""
    try:
        if overwrite:
            source.replace(target)
        else:
            _rename_unless_exists(source, target)
    except FileExistsError:
        raise AlreadyExists(f"{path}: exists already") from None
    except IsADirectoryError:
        raise StorageError(f"{path}: a folder, expected a file") from None


def _rename_unless_exists(source: Path, target: Path) -> None:
    try:
        # Unlike rename, link fails when another writer was faster.
        target.hardlink_to(source)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        # There are no hard links on exFAT, and on many FUSE and SMB mounts; each says so in its own way.
        _rename_in_turn(source, target)
        return
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise


def _rename_in_turn(source: Path, target: Path) -> None:
    """Rename a file while all others that do so wait."""
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(target):
            raise FileExistsError
        source.rename(target)
    finally:
        os.close(folder)


def _entry(path: str, status: os.stat_result) -> Entry:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return Entry(path, status.st_size, modified, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}")
