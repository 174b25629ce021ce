"""The file that a backup is: a tar.gz whose last member, `manifest.json`, says what all others have to be.

The manifest comes last because sizes and hashes are only known when everything is written, in one pass. It is one
JSON object with a line for each file, in the order of the archive. So neither writing nor reading keeps the list in
memory: whoever reads the archive writes the same lines into a temporary file, and compares.
"""

import gzip
import hashlib
import itertools
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO, Self, cast

import msgspec

from backup import files
from backup.encryption import decrypt
from backup.errors import BackupError, Refused

FORMAT = 1
MANIFEST = "manifest.json"
# How much of a file is held in memory at a time, in bytes.
CHUNK = 1 << 20
# How long the list of all files may be, about five million of them, and how long one line of it.
LONGEST_LIST = 1 << 30
LONGEST_LINE = 1 << 16
# What stands in the manifest between what it says of the backup and the lines of its files, and behind these.
FILES_FOLLOW = b',"files":[\n'
END = b"\n]}\n"
GZIP = b"\x1f\x8b"


class Database(msgspec.Struct, frozen=True):
    """The database in a backup: sqlite or postgresql, its version, and the migrations it is at."""

    kind: str
    version: str
    revisions: list[str]


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself; `not_included` has a line for everything that has to be kept in another way.

    `owner` and `group` are those of the app folder.
    """

    format: int
    slug: str
    version: str
    python: str
    created: str
    database: Database
    owner: str
    group: str
    not_included: list[str]


class Entry(msgspec.Struct, omit_defaults=True):
    """A file or, without a hash, a folder; `mode` in octal, `modified` in seconds since 1970."""

    path: str
    mode: str
    owner: str
    group: str
    modified: int
    size: int = 0
    sha256: str | None = None


class Measured:
    """A stream that is read to its end, and its hash."""

    def __init__(self, stream: IO[bytes], seen: Callable[[int], object] | None = None) -> None:
        self.stream, self.seen = stream, seen
        self.hash = hashlib.sha256()

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes."""
        data = self.stream.read(size)
        self.hash.update(data)
        if self.seen:
            self.seen(len(data))
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read():
            pass


class Listing:
    """The lines of a manifest, in a temporary file that has no name."""

    def __init__(self, start: bytes = b"") -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  (who reads the list needs it open)
        self.file.write(start)
        self.separator = b""

    def add(self, entry: Entry) -> None:
        """Add a line.

        Raises:
            Refused: there are too many.
        """
        self.file.write(self.separator + msgspec.json.encode(entry))
        self.separator = b",\n"
        if self.file.tell() > LONGEST_LIST:
            raise Refused(f"more files than a manifest of {LONGEST_LIST} bytes can list")

    def lines(self) -> Iterator[bytes]:
        """All lines, without what separates them."""
        self.file.seek(0)
        return (line.rstrip(b",\n") for line in self.file)


class Writer:
    """Writes a backup into a stream.

    Args:
        stream: takes the bytes.
        manifest: what to say at the end.
        seen: is told how many bytes of files were read since it was told last.
    """

    def __init__(self, stream: BinaryIO, manifest: Manifest, seen: Callable[[int], object]) -> None:
        self.seen = seen
        self.listing = Listing(msgspec.json.encode(manifest)[:-1] + FILES_FOLLOW)
        # Compressed lightly: pictures are compressed already, and a backup should not take the service's processor.
        self.gzip = gzip.GzipFile("", "wb", 1, stream, mtime=0)
        # GNU's format needs no extension but for long names, so that readers can refuse all others.
        self.tar = tarfile.TarFile(fileobj=self.gzip, mode="w", format=tarfile.GNU_FORMAT, copybufsize=CHUNK)

    def add(self, path: str, status: os.stat_result, file: IO[bytes] | None = None, size: int = 0) -> None:
        """Add a folder, or a file with its content, `size` bytes.

        Raises:
            BackupError: the file became shorter meanwhile, or there are too many.
        """
        header = tarfile.TarInfo(path)
        header.type = tarfile.REGTYPE if file else tarfile.DIRTYPE
        header.mode = stat.S_IMODE(status.st_mode) & 0o777
        header.mtime = max(0, int(status.st_mtime))
        header.uid, header.gid = status.st_uid, status.st_gid
        header.uname, header.gname = files.owner(status)
        header.size = size
        source = Measured(file, self.seen) if file else None
        try:
            self.tar.addfile(header, cast("IO[bytes] | None", source))
        except OSError as error:
            if error.errno is None:
                raise BackupError(f"{path!r}: became shorter while it was read; try again") from None
            raise
        _forget_members(self.tar)
        self.listing.add(_entry(header, source))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.listing.file as listing, self.gzip:
            if kind is None:
                listing.write(END)
                header = tarfile.TarInfo(MANIFEST)
                header.size, header.mode = listing.tell(), 0o600
                listing.seek(0)
                self.tar.addfile(header, cast("IO[bytes]", listing))
                self.tar.close()


@dataclass(frozen=True)
class Content:
    """What was found in a backup; `size` is that of all files together."""

    manifest: Manifest
    files: int
    size: int


def read(
    file: BinaryIO,
    passphrase: str,
    take: Callable[[Entry, Measured | None], None],
    position: Callable[[int], object],
    limit: int | None = None,
) -> Content:
    """Read a whole backup, and compare it with its manifest.

    Args:
        file: the backup.
        passphrase: for one that is encrypted.
        take: gets each folder, and each file with its content, before it is known whether that is right.
        position: is told up to where `file` was read.
        limit: how many bytes there may be in all.

    Raises:
        Refused: it is no backup, is damaged, or holds what no backup holds.
    """
    count, total, previous, entries = 0, 0, None, Listing()
    with entries.file, _content(file, passphrase) as content, _damaged():
        tar = tarfile.TarFile(fileobj=content, tarinfo=_Header)
        while (header := tar.next()) and header.name != MANIFEST:
            _forget_members(tar)
            _require_place(header, previous)
            previous = header
            total += header.size
            if limit is not None and total > limit:
                raise Refused(f"unpacks to more than the {limit} bytes that are free")
            source = Measured(_stream(tar, header), lambda _: position(file.tell())) if header.isreg() else None
            take(_entry(header), source)
            if source:
                source.drain()
                count += 1
            entries.add(_entry(header, source))
        if not header or not header.isreg():
            raise Refused("cut off, or not a backup: there is no manifest at its end")
        manifest = _compare(_stream(tar, header), entries)
        if tar.next() or any(rest := content.read(tarfile.RECORDSIZE + 1)) or len(rest) > tarfile.RECORDSIZE:
            raise Refused("altered: there is something behind its end")
    return Content(manifest, count, total)


@contextmanager
def _content(file: BinaryIO, passphrase: str) -> Iterator[IO[bytes]]:
    """The tar in a backup, whether it is encrypted or not."""
    file.seek(0)
    start = file.read(len(GZIP))
    file.seek(0)
    if start == GZIP:
        with gzip.GzipFile(fileobj=file) as content:
            yield cast("IO[bytes]", content)
        return
    try:
        outer = tarfile.TarFile(fileobj=file, tarinfo=_Header)
    except (tarfile.TarError, EOFError):
        raise Refused("not a backup") from None
    with _damaged(), decrypt(outer, passphrase) as stream, gzip.GzipFile(fileobj=stream) as content:
        yield cast("IO[bytes]", content)


class _Header(tarfile.TarInfo):
    """A header of the few kinds that a backup has.

    All others are refused before they are looked into: links, devices, sparse files, and extensions, whose length
    Python's tarfile trusts.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        is_name = header.type == tarfile.GNUTYPE_LONGNAME and header.size <= files.LONGEST_PATH + 2
        if not (is_name or header.type in (tarfile.REGTYPE, tarfile.DIRTYPE)) or header.size < 0:
            raise Refused(f"holds {header.name[:100]!r}, which is neither file nor folder")
        if header.type == tarfile.DIRTYPE and header.size:
            raise Refused(f"holds {header.name[:100]!r}, a folder with content")
        return header


def _forget_members(tar: tarfile.TarFile) -> None:
    """Keep memory free of what was dealt with; only since Python 3.13, tarfile can do so itself."""
    tar.members.clear()  # type: ignore[attr-defined]


def _entry(header: tarfile.TarInfo, source: Measured | None = None) -> Entry:
    path = header.name.rstrip("/") if header.isdir() else header.name
    sha256 = source.hash.hexdigest() if source else None
    return Entry(path, f"{header.mode:04o}", header.uname, header.gname, int(header.mtime), header.size, sha256)


def _require_place(header: tarfile.TarInfo, previous: tarfile.TarInfo | None) -> None:
    """Refuse a path that leads elsewhere, that backups do not hold, or that comes twice.

    This is stricter than the filters of tarfile, which Python has only since 3.11.4.
    """
    shown, path = repr(header.name[:100]), _entry(header).path
    if not files.is_path(path) or files.FORBIDDEN.search(header.uname + header.gname):
        raise Refused(f"holds {shown}, which is no path of a file in a backup")
    if not files.is_included(path) or ("/" not in path and header.isdir() != (path in files.FOLDERS)):
        raise Refused(f"holds {shown}, which belongs into no backup")
    if header.mode & ~0o777 or not 0 <= header.mtime < 1 << 40:
        raise Refused(f"holds {shown} with a mode or time that no backup has")
    if previous:
        names, before = files.sort_key(path), files.sort_key(_entry(previous).path)
        if names <= before:
            raise Refused(f"holds {shown} twice, or out of order")
        if previous.isreg() and names[: len(before)] == before:
            raise Refused(f"holds {shown} below a file")


def _stream(tar: tarfile.TarFile, header: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(header)
    if stream is None:
        raise Refused(f"holds {header.name[:100]!r}, which cannot be read")
    return stream


def _compare(manifest: IO[bytes], entries: Listing) -> Manifest:
    """The manifest, if its list is the one that was made of what is really there."""
    try:
        start = msgspec.json.decode(manifest.readline(LONGEST_LINE).removesuffix(FILES_FOLLOW) + b"}")
        if not isinstance(start, dict) or start.get("format") != FORMAT:
            raise Refused(f"not of format {FORMAT}, the only one that this version reads")
        told = msgspec.convert(start, Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Refused(f"its manifest is damaged: {error}") from None
    for mine in itertools.chain(entries.lines(), [END.strip()]):
        theirs = manifest.readline(LONGEST_LINE).rstrip(b",\n")
        if mine != theirs:
            raise Refused(_difference(_path(mine), _path(theirs)))
    if manifest.read(1):
        raise Refused("altered: its manifest goes on behind its end")
    return told


def _path(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=Entry).path
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None  # It is the end of the list, or nothing that was ever on one.


def _difference(found: str | None, told: str | None) -> str:
    if found == told:
        return f"altered: {found!r} is not what its manifest says"
    if found and (told is None or files.sort_key(found) < files.sort_key(told)):
        return f"altered: its manifest does not name {found!r}"
    return f"altered: {told!r} is missing"


@contextmanager
def _damaged() -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, RecursionError) as error:
        raise Refused(f"damaged: {error}") from None
