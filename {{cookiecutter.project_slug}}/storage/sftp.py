"""`sftp://user@host/path`: a folder of another machine, through paramiko."""

import logging
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import SplitResult, unquote

import paramiko

from storage.backend import ABANDONED, ATTEMPTS, Backend, Entry
from storage.errors import AlreadyExists, InvalidPath, NotFound, PermissionDenied, StorageError
from storage.paths import FORBIDDEN, PARTIAL, is_partial, new_partial
from storage.streams import RemoteFile

# It logs with a traceback what it raises as well.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

# Seconds until a server or its answer is given up, and between attempts to connect.
CONNECT_TIMEOUT, TIMEOUT = 5.0, 30.0
PAUSES = (0.2, 1.0, 3.0)
# Bytes that one message carries.
PACKET = 32768
FILE_MODE, FOLDER_MODE = 0o640, 0o750
# What Paramiko raises when a connection is of no use any more.
FAILURES = (EOFError, OSError, paramiko.SSHException, paramiko.SFTPError)
# What trying again does not change.
FINAL = (paramiko.AuthenticationException, paramiko.BadHostKeyException, FileNotFoundError, PermissionError)


class SftpBackend(Backend):
    """Files below one folder of an SFTP server. Links that lead out of it are refused.

    As on the local disk, a file is written in the folder PARTIAL and renamed to its place. The server's host key has
    to be known: it is looked up in `known_hosts`, ~/.ssh/known_hosts if not given. Logging in takes the URL's password,
    the file `key_file`, or what an SSH agent and ~/.ssh hold.
    """

    OPTIONS = ("key_file", "known_hosts")

    def __init__(self, server: SplitResult, options: Mapping[str, str]) -> None:
        self.server, self.port, self.options = server, server.port or 22, options
        self.root = ""
        # Paramiko's connections serve one caller at a time.
        self.idle: list[tuple[paramiko.SSHClient, paramiko.SFTPClient]] = []

    def reader(self, path: str) -> BinaryIO:
        with ExitStack() as stack:
            sftp = stack.enter_context(self._connection(path))
            self._find(sftp, path)
            file = stack.enter_context(sftp.open(self._address(path), "rb"))
            return _Download(self, path, file, stack.pop_all()).buffered()

    def put(self, path: str, file: BinaryIO, size: int, *, overwrite: bool) -> None:
        partial = new_partial()
        with self._connection(path) as sftp:
            try:
                with self._create(sftp, partial) as remote:
                    while data := file.read(PACKET):
                        # The last packet waits until the server has taken them all.
                        remote.set_pipelined(file.tell() < size)
                        remote.write(data)
                self._rename(sftp, partial, path, overwrite=overwrite)
            except BaseException:
                with suppress(*FAILURES):
                    sftp.remove(self._address(partial))
                raise

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        with self._connection(source) as sftp:
            self._find(sftp, source)
            self._rename(sftp, source, target, overwrite=overwrite)
            self._remove_empty_folders(sftp, source)

    def remove(self, path: str) -> None:
        with self._connection(path) as sftp:
            self._find(sftp, path)
            sftp.remove(self._address(path))
            self._remove_empty_folders(sftp, path)

    def stat(self, path: str) -> Entry:
        with self._connection(path) as sftp:
            found = self._find(sftp, path)
            return _entry(path, found.st_size or 0, found.st_mtime or 0)

    def walk(self, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        children: list[tuple[str, int, int]] = []
        # The connection is free again before the first entry is handed out.
        with self._connection(prefix or ".") as sftp, suppress(FileNotFoundError):
            for child in sftp.listdir_iter(self._inside(sftp, prefix)):
                # A folder has the slash behind it, so that whole paths sort.
                name = child.filename + "/" * stat.S_ISDIR(child.st_mode or 0)
                if (name[-1] == "/" or stat.S_ISREG(child.st_mode or 0)) and not FORBIDDEN.search(name):
                    children.append((name, child.st_size or 0, child.st_mtime or 0))
        for name, size, modified in sorted(children):
            path = f"{prefix}/{name}" if prefix else name
            if name[-1] != "/":
                yield _entry(path, size, modified)
            elif recursive and path != f"{PARTIAL}/":
                yield from self.walk(path[:-1], recursive=True)

    def check(self) -> None:
        with self._connection(".") as sftp:
            probe = new_partial()
            self._create(sftp, probe).close()
            sftp.remove(self._address(probe))

    @contextmanager
    def errors(self, path: str) -> Iterator[None]:
        host = self.server.hostname
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"{path}: no such file") from None
        except PermissionError:
            raise PermissionDenied(f"{path}: {host} denies it") from None
        except UnicodeDecodeError:
            raise StorageError(f"{path}: {host} has a name there that is not UTF-8") from None
        except FAILURES as error:
            raise StorageError(f"{path}: {host}: {_reason(error)}") from None

    @contextmanager
    def _connection(self, path: str) -> Iterator[paramiko.SFTPClient]:
        """A connection for one caller."""
        client, sftp = self._take_idle() or self._connect(path)
        try:
            with self.errors(path):
                yield sftp
        finally:
            self.idle.append((client, sftp))

    def _take_idle(self) -> tuple[paramiko.SSHClient, paramiko.SFTPClient] | None:
        """A connection that answers, and that this process has made: its thread does not live on in a forked one."""
        with suppress(IndexError):
            while True:
                client, sftp = self.idle.pop()
                transport = client.get_transport()
                with suppress(*FAILURES):
                    if transport and transport.is_alive() and sftp.stat("."):
                        return client, sftp
                client.close()
        return None

    def _connect(self, path: str) -> tuple[paramiko.SSHClient, paramiko.SFTPClient]:
        pauses = iter(PAUSES)
        while True:
            client = paramiko.SSHClient()
            try:
                return client, self._log_in(client)
            except FAILURES as error:
                client.close()
                pause = next(pauses, None)
                if pause is None or isinstance(error, FINAL) or "known_hosts" in str(error):
                    kind = PermissionDenied if isinstance(error, paramiko.AuthenticationException) else StorageError
                    raise kind(f"{path}: {self.server.hostname}: {_reason(error)}") from None
                time.sleep(pause)

    def _log_in(self, client: paramiko.SSHClient) -> paramiko.SFTPClient:
        client.load_system_host_keys(self.options.get("known_hosts"))
        password, key_file = self.server.password, self.options.get("key_file")
        is_told = bool(password or key_file)
        client.connect(
            self.server.hostname or "",
            self.port,
            username=unquote(self.server.username) if self.server.username else None,
            password=unquote(password) if password else None,
            key_filename=key_file,
            allow_agent=not is_told,
            look_for_keys=not is_told,
            timeout=CONNECT_TIMEOUT,
            banner_timeout=CONNECT_TIMEOUT,
            auth_timeout=TIMEOUT,
        )
        sftp = client.open_sftp()
        cast("paramiko.Channel", sftp.get_channel()).settimeout(TIMEOUT)
        if not self.root:
            root = PurePosixPath(unquote(self.server.path))
            for folder in (*reversed(root.parents), root):
                with suppress(OSError):  # It is there. If not, whatever needs it fails.
                    sftp.mkdir(str(folder), FOLDER_MODE)
            self.root = sftp.normalize(str(root)).rstrip("/")
            self._remove_abandoned(sftp)
        return sftp

    def _address(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _inside(self, sftp: paramiko.SFTPClient, path: str) -> str:
        """The address of a path, wherever links lead to inside the root."""
        real = sftp.normalize(self._address(path))
        if real != self.root and not real.startswith(f"{self.root}/"):
            raise InvalidPath(f"{path}: a link leads out of the storage")
        return self._address(path)

    def _find(self, sftp: paramiko.SFTPClient, path: str) -> paramiko.SFTPAttributes:
        found = sftp.stat(self._inside(sftp, path))
        if not stat.S_ISREG(found.st_mode or 0):
            raise NotFound(f"{path}: no such file")
        return found

    def _create(self, sftp: paramiko.SFTPClient, path: str) -> paramiko.SFTPFile:
        self._make_folders(sftp, path)
        file = sftp.open(self._address(path), "wbx")
        file.chmod(FILE_MODE)
        return file

    def _rename(self, sftp: paramiko.SFTPClient, source: str, target: str, *, overwrite: bool) -> None:
        # OpenSSH makes a second link and removes the first one, which fails when somebody was faster.
        rename = sftp.posix_rename if overwrite else sftp.rename
        for _ in range(ATTEMPTS):
            try:
                rename(self._address(source), self._inside(sftp, target))
            except FileNotFoundError:
                self._find(sftp, source)
                self._make_folders(sftp, target)
            except OSError:
                with suppress(FileNotFoundError):
                    if stat.S_ISDIR(sftp.stat(self._address(target)).st_mode or 0):
                        raise StorageError(f"{target}: a folder, expected a file") from None
                    if not overwrite:
                        raise AlreadyExists(f"{target}: exists already") from None
                raise
            else:
                return
        raise StorageError(f"{target}: its folder is removed again and again")

    def _make_folders(self, sftp: paramiko.SFTPClient, path: str) -> None:
        """Make the folders that a path lies in, and the root."""
        for folder in ("", *_parents(path)):
            try:
                found = sftp.stat(self._inside(sftp, folder))
            except FileNotFoundError:
                try:
                    sftp.mkdir(self._address(folder), FOLDER_MODE)
                except OSError as error:
                    # If not, somebody was faster, with making it or with removing the one it lies in.
                    if isinstance(error, PermissionError):
                        raise
            else:
                if not stat.S_ISDIR(found.st_mode or 0):
                    raise StorageError(f"{path}: a file stands where a folder is needed")

    def _remove_empty_folders(self, sftp: paramiko.SFTPClient, path: str) -> None:
        with suppress(OSError):
            for folder in reversed(_parents(path)):
                sftp.rmdir(self._address(folder))

    def _remove_abandoned(self, sftp: paramiko.SFTPClient) -> None:
        before = time.time() - ABANDONED.total_seconds()
        with suppress(OSError):  # Whoever may only read has left nothing there.
            for found in sftp.listdir_attr(self._address(PARTIAL)):
                path = f"{PARTIAL}/{found.filename}"
                if (found.st_mtime or 0) < before and is_partial(path):
                    sftp.remove(self._address(path))


class _Download(RemoteFile):
    """Many messages at a time, so that a distant server is not waited for after each."""

    def __init__(self, backend: SftpBackend, path: str, file: paramiko.SFTPFile, resources: ExitStack) -> None:
        super().__init__(file.stat().st_size or 0)
        self.backend, self.path, self.file, self.resources = backend, path, file, resources

    def fetch(self, count: int) -> bytes:
        end = min(self.position + count, self.size)
        packets = [(start, min(PACKET, end - start)) for start in range(self.position, end, PACKET)]
        with self.backend.errors(self.path):
            if len(packets) > 1:
                return b"".join(self.file.readv(packets))
            self.file.seek(self.position)
            return self.file.read(end - self.position)

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            super().close()
            self.resources.close()


def _parents(path: str) -> list[str]:
    """The folders that a path lies in, outermost first."""
    return [str(folder) for folder in reversed(PurePosixPath(path).parents[:-1])]


def _reason(error: Exception) -> str:
    if isinstance(error, paramiko.PasswordRequiredException):
        return "the key file has a passphrase, expected one without"
    if isinstance(error, paramiko.AuthenticationException):
        return "the login is refused"
    if isinstance(error, paramiko.BadHostKeyException):
        return "its host key is not the known one"
    if "not found in known_hosts" in str(error):
        return "its host key is not known; add it to known_hosts"
    if isinstance(error, TimeoutError) or "No existing session" in str(error):
        return "takes too long"
    return str(error) or type(error).__name__


def _entry(path: str, size: int, seconds: int) -> Entry:
    return Entry(path, size, datetime.fromtimestamp(seconds, UTC), f"{seconds:x}-{size:x}")
