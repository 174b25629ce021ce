"""`file:///path`: a folder of the local disk."""

import errno
import fcntl
import grp
import logging
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from storage.backend import ATTEMPTS, Backend, Entry
from storage.errors import AlreadyExists, InvalidPath, NotFound, PermissionDenied, StorageError
from storage.paths import FORBIDDEN, PARTIAL, is_partial, new_partial
from storage.streams import Draft

logger = logging.getLogger(__name__)

# Linux tells where an open file really is, so that what is checked is what is used.
OPEN_FILES = "/proc/self/fd" if Path("/proc/self/fd").is_dir() else None


class FileBackend(Backend):
    """Files below one folder. Links that lead out of it are refused.

    A file is written in the folder PARTIAL, flushed to disk, and then renamed to its place: readers see the old file
    or the new one, whatever happens to the writer. Folders come and go with the files in them.

    Args:
        root: the folder.
        options: `file_mode` and `folder_mode` in octal, 0640 and 0750 if not given; `owner` as for chown: `user`,
            `user:group` or `:group`, that of the process if not given.

    Raises:
        ValueError: an option is wrong.
    """

    OPTIONS = ("file_mode", "folder_mode", "owner")

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        self.root = os.path.realpath(root)
        self.inside = self.root.rstrip("/") + "/"
        self.file_mode = _mode(options.get("file_mode", "0640"))
        self.folder_mode = _mode(options.get("folder_mode", "0750"))
        self.owner = _owner(options.get("owner", ""))
        self._remove_abandoned()

    def read(self, path: str) -> bytes:
        # Small files are read often; a context manager would cost as much as the reading.
        try:
            descriptor, status = self._open(path, path)
            try:
                data = os.read(descriptor, status.st_size)
                # One call reads at most 2 GiB.
                while len(data) < status.st_size and (more := os.read(descriptor, status.st_size - len(data))):
                    data += more
                return data
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._translate(path, error) from None

    def reader(self, path: str) -> BinaryIO:
        with self.errors(path):
            return os.fdopen(self._open(path, path)[0], "rb")

    def draft(self, path: str, *, overwrite: bool) -> Draft:
        with self.errors(path):
            descriptor, partial = self._new_partial()
            file = os.fdopen(descriptor, "wb")

        def commit() -> None:
            file.flush()
            os.fsync(descriptor)
            self._put(partial, None, path, overwrite=overwrite)
            file.close()

        def discard() -> None:
            with suppress(OSError):  # A full disk shows itself once more while the buffer is thrown away.
                file.close()
            with suppress(FileNotFoundError):
                os.unlink(partial)

        return Draft(path, file, commit, discard, self.errors)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        with self.errors(source):
            folder, name = self._open_folder_of(source)
            try:
                self._require_file(folder, name, source)
                self._put(name, folder, target, overwrite=overwrite)
            finally:
                os.close(folder)
            self._remove_empty_folders(source)

    def remove(self, path: str) -> None:
        with self.errors(path):
            folder, name = self._open_folder_of(path)
            try:
                self._require_file(folder, name, path)
                os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)
            self._remove_empty_folders(path)

    def stat(self, path: str) -> Entry:
        with self.errors(path):
            descriptor, status = self._open(path, path)
            os.close(descriptor)
            return _entry(path, status)

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        try:
            with self.errors(prefix or "."):
                folder = self._open(prefix or ".", prefix, os.O_DIRECTORY)[0]
        except NotFound:
            return
        with self.errors(prefix or "."):
            try:
                for name in _sorted_names(folder):
                    path = f"{prefix}/{name}" if prefix else name
                    if name[-1] == "/":
                        if recursive and path != f"{PARTIAL}/":
                            yield from self.walk(path[:-1], recursive=True)
                        continue
                    try:
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # It was removed since the folder was read.
                    if stat.S_ISREG(status.st_mode):
                        yield _entry(path, status)
            finally:
                os.close(folder)

    def check(self) -> None:
        self.draft(self.root, overwrite=True).discard()

    def _open(self, path: str, place: str, flags: int = os.O_NONBLOCK) -> tuple[int, os.stat_result]:
        """Open a file, or the folder `place` of `path`, wherever links lead to inside the root.

        A FIFO would wait for a writer without O_NONBLOCK.
        """
        descriptor = os.open(f"{self.root}/{place}", os.O_RDONLY | flags)
        try:
            # What is checked is what was opened, where the system can tell.
            self._require_inside(path, os.readlink(f"{OPEN_FILES}/{descriptor}") if OPEN_FILES else None)
            status = os.fstat(descriptor)
            if not (stat.S_ISREG(status.st_mode) or flags & os.O_DIRECTORY):
                raise NotFound(f"{path}: no such file")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    def _open_folder_of(self, path: str) -> tuple[int, str]:
        """The folder that a path lies in, and the path's last name."""
        folder, _, name = path.rpartition("/")
        return self._open(path, folder, os.O_DIRECTORY)[0], name

    def _require_inside(self, path: str, real: str | None = None) -> None:
        real = real or os.path.realpath(f"{self.root}/{path}")
        if not f"{real}/".startswith(self.inside):
            raise InvalidPath(f"{path}: a link leads out of the storage")

    def _require_file(self, folder: int, name: str, path: str) -> None:
        """Refuse what is no file, and a link that leads out, though only the link would be touched."""
        mode = os.lstat(name, dir_fd=folder).st_mode
        if stat.S_ISLNK(mode):
            self._require_inside(path)
        elif not stat.S_ISREG(mode):
            raise NotFound(f"{path}: no such file")

    def _put(self, source: str, source_folder: int | None, path: str, *, overwrite: bool) -> None:
        """Rename a file to its place, making folders as needed."""
        for _ in range(ATTEMPTS):
            try:
                folder, name = self._open_folder_of(path)
            except FileNotFoundError:
                self._make_folders(path)
                continue
            except NotADirectoryError:
                self._require_inside(path)
                raise StorageError(f"{path}: a file stands where a folder is needed") from None
            try:
                with suppress(FileNotFoundError):
                    self._require_file(folder, name, path)
                if overwrite:
                    os.replace(source, name, src_dir_fd=source_folder, dst_dir_fd=folder)
                else:
                    # Unlike rename, link fails when somebody else was faster.
                    os.link(source, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
                    try:
                        os.unlink(source, dir_fd=source_folder)
                    except OSError:
                        os.unlink(name, dir_fd=folder)
                        raise
                return
            except NotFound:
                raise StorageError(f"{path}: a folder, expected a file") from None
            except FileExistsError:
                raise AlreadyExists(f"{path}: exists already") from None
            except FileNotFoundError:
                os.lstat(source, dir_fd=source_folder)  # It is not the source that is gone, so it is the folder.
            finally:
                os.close(folder)
        raise StorageError(f"{path}: its folder is removed again and again")

    def _make_folders(self, path: str) -> None:
        """Make the folders that a path lies in, and the root."""
        self._require_inside(path)
        for place in reversed(Path(self.root, path).parents):
            if not place.exists():
                # Others may make it as well, or remove the one that it lies in; whoever needs it looks again.
                with suppress(FileExistsError, FileNotFoundError):
                    place.mkdir()
                    self._give_mode_and_owner(place, place.stat(), self.folder_mode)

    def _remove_empty_folders(self, path: str) -> None:
        while path := path.rpartition("/")[0]:
            try:
                Path(self.root, path).rmdir()
            except OSError:
                return

    def _new_partial(self) -> tuple[int, str]:
        """A new file in PARTIAL, open, and where it is. The lock on it ends with the process, however that ends."""
        for _ in range(ATTEMPTS):
            place = f"{self.root}/{new_partial()}"
            try:
                descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.file_mode)
            except FileNotFoundError:
                self._make_folders(new_partial())
                continue
            except NotADirectoryError:
                break
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                status = os.fstat(descriptor)
                if status.st_nlink:
                    self._give_mode_and_owner(descriptor, status, self.file_mode)
                    return descriptor, place
            except BaseException:
                os.close(descriptor)
                os.unlink(place)
                raise
            os.close(descriptor)  # Another process has taken it for abandoned before it was locked.
        raise StorageError(f"{self.root}/{PARTIAL}: cannot be made a folder")

    def _give_mode_and_owner(self, place: int | Path, status: os.stat_result, mode: int) -> None:
        if stat.S_IMODE(status.st_mode) != mode:
            os.chmod(place, mode)
        if self.owner != (-1, -1):
            os.chown(place, *self.owner)

    def _remove_abandoned(self) -> None:
        """Remove what writers have left that were killed: files that nobody holds a lock on."""
        folder = Path(self.root, PARTIAL)
        with suppress(OSError):
            for place in () if folder.is_symlink() else folder.iterdir():
                if is_partial(f"{PARTIAL}/{place.name}"):
                    with suppress(OSError), place.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        place.unlink()

    @contextmanager
    def errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._translate(path, error) from None

    def _translate(self, path: str, error: OSError) -> StorageError:
        # A socket cannot be opened: ENXIO.
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) or error.errno == errno.ENXIO:
            self._require_inside(path)
            return NotFound(f"{path}: no such file")
        if isinstance(error, PermissionError):
            return PermissionDenied(f"{path}: {error.strerror}")
        if error.errno == errno.ELOOP:
            return InvalidPath(f"{path}: a link leads in circles")
        return StorageError(f"{path}: {error.strerror}")


def _sorted_names(folder: int) -> list[str]:
    """The names in a folder that a path can hold. A folder has the slash behind it, so that whole paths sort."""
    with os.scandir(folder) as children:
        names = [f"{child.name}/" if child.is_dir(follow_symlinks=False) else child.name for child in children]
    if FORBIDDEN.search("".join(names)):
        for name in filter(FORBIDDEN.search, names):
            logger.warning("left out of a listing, since no path can hold its name: %a", name)
        names = [name for name in names if not FORBIDDEN.search(name)]
    return sorted(names)


def _entry(path: str, status: os.stat_result) -> Entry:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return Entry(path, status.st_size, modified, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}")


def _mode(text: str) -> int:
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ValueError(f"mode {text!r}, expected one like 0640")
    return int(text, 8)


def _owner(text: str) -> tuple[int, int]:
    """The numbers of `user:group`; -1 leaves what is."""
    user, _, group = text.partition(":")
    try:
        return pwd.getpwnam(user).pw_uid if user else -1, grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise ValueError(f"owner {text!r}: no such user or group") from None
