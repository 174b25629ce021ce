"""Encrypted backups, in the format of age (https://age-encryption.org), so that its own tool reads them too.

pyrage encrypts with a passphrase in memory only, and streams for keys. So an encrypted backup is a tar of two members:
`key.age`, a fresh key that is encrypted with the passphrase, and `backup.tar.gz.age`, which is encrypted for that key.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO

from backup.errors import BackupError, Refused

KEY = "key.age"
CONTENT = "backup.tar.gz.age"
LONGEST_KEY = 4096


@contextmanager
def encrypt(file: BinaryIO, passphrase: str) -> Iterator[BinaryIO]:
    """A stream whose bytes go into `file`, encrypted.

    Raises:
        BackupError: pyrage is not installed, or `file` cannot be written.
    """
    pyrage = _library()
    identity = pyrage.x25519.Identity.generate()
    key = pyrage.passphrase.encrypt(str(identity).encode(), passphrase)
    file.write(_header(KEY, len(key)) + key + _padding(len(key)))
    header = file.tell()
    file.write(bytes(tarfile.BLOCKSIZE))  # The size that belongs here is not known yet.

    def work(reader: BinaryIO) -> None:
        try:
            pyrage.encrypt_io(reader, file, [identity.to_public()])
        except pyrage.EncryptError as error:
            raise BackupError(str(error).removeprefix("OSError: ")) from None

    with _thread("rb", work) as (stream, worker):
        try:
            yield stream
            stream.close()
        except BrokenPipeError:
            worker.result()  # It has ended too early, and says why.
            raise
        worker.result()
    size = file.tell() - header - tarfile.BLOCKSIZE
    file.write(_padding(size) + bytes(2 * tarfile.BLOCKSIZE))
    file.seek(header)
    file.write(_header(CONTENT, size))


@contextmanager
def decrypt(tar: tarfile.TarFile, passphrase: str) -> Iterator[BinaryIO]:
    """What is in an encrypted backup, as a stream.

    Raises:
        Refused: it is not encrypted like this, or not with this passphrase, or was altered.
        BackupError: pyrage is not installed.
    """
    key, content = tar.next(), tar.next()
    if not key or not content or (key.name, content.name) != (KEY, CONTENT) or key.size > LONGEST_KEY:
        raise Refused("not a backup of this kind of service")
    if not passphrase:
        raise Refused("encrypted, and backup.passphrase is not set; set BACKUP_PASSPHRASE")
    pyrage = _library()
    sealed, source = tar.extractfile(key), tar.extractfile(content)
    try:
        secret = pyrage.passphrase.decrypt(sealed.read() if sealed else b"", passphrase)
        identity = pyrage.x25519.Identity.from_str(secret.decode("ascii"))
    except (pyrage.DecryptError, pyrage.IdentityError, UnicodeDecodeError):
        raise Refused("the passphrase is another one, or the file is damaged") from None

    def work(writer: BinaryIO) -> None:
        try:
            pyrage.decrypt_io(source, writer, [identity])
        except BrokenPipeError:
            return  # The reader has seen enough.
        except (pyrage.DecryptError, OSError, tarfile.ReadError):
            raise Refused("damaged: it cannot be decrypted to its end") from None

    with _thread("wb", work) as (stream, worker):
        try:
            yield stream
        except Refused:
            stream.close()
            worker.result()  # Why the stream has ended too early, if it has.
            raise
        stream.close()
        worker.result()


@contextmanager
def _thread(mode: str, work: Callable[[BinaryIO], None]) -> Iterator[tuple[BinaryIO, Future[None]]]:
    """Our end of a pipe, and the thread that works at the other end, which is opened in `mode`."""
    reading, writing = os.pipe()
    theirs, ours = (reading, writing) if mode == "rb" else (writing, reading)

    def run() -> None:
        stream: Any = open(theirs, mode)  # noqa: PTH123, SIM115  (a descriptor, closed below)
        try:
            work(stream)
        finally:
            _close(stream)

    with ThreadPoolExecutor(1, thread_name_prefix="age") as pool:
        worker = pool.submit(run)
        stream: Any = open(ours, "wb" if mode == "rb" else "rb")  # noqa: PTH123, SIM115  (a descriptor, closed below)
        try:
            yield stream, worker
        finally:
            _close(stream)


def _close(stream: BinaryIO) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return  # The other end has ended before; why, is told there.


def _header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    return header.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _library() -> Any:
    try:
        import pyrage
    except ModuleNotFoundError:
        raise BackupError("pyrage is not installed; run `make add PACKAGE=pyrage && make setup`") from None
    return pyrage
