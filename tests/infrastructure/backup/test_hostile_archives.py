"""Files that somebody else has made. Each is refused in one line, and nothing of it is written."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backup import Refused
from backup.create import create
from backup.restore import restore, verify
from config import Settings
from tests.infrastructure.backup.test_create_and_restore import tree

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(content), 0o600
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


def unpack(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(header, stream.read() if (stream := tar.extractfile(header)) else b"") for header in tar]


def pack(path: Path, members: Members, form: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w:gz", format=form, compresslevel=1) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))


def listed(members: Members, **changes: Any) -> Members:
    """The members with a manifest that is right for them."""
    head = {**json.loads(members[-1][1]), **changes}
    del head["files"]
    lines = []
    for header, content in members[:-1]:
        entry: dict[str, str | int] = {
            "path": header.name,
            "mode": f"{header.mode:04o}",
            "owner": header.uname,
            "group": header.gname,
        }
        entry |= {"modified": int(header.mtime)}
        if header.size:
            entry["size"] = header.size
        if header.isreg():
            entry["sha256"] = hashlib.sha256(content).hexdigest()
        lines.append(json.dumps(entry, separators=(",", ":"), ensure_ascii=False))
    text = json.dumps(head, separators=(",", ":"))[:-1] + ',"files":[\n' + ",\n".join(lines) + "\n]}\n"
    return [*members[:-1], member("manifest.json", text.encode())]


@pytest.fixture
def good(settings: Settings) -> Path:
    return create(settings).path


@pytest.fixture
def refused(settings: Settings, good: Path, tmp_path: Path) -> Callable[[str], None]:
    """Whether both commands refuse the file, for a reason, and leave nothing behind."""

    def check(reason: str) -> None:
        before = tree(tmp_path)
        for attempt in (lambda: verify(good, settings), lambda: restore(good, tmp_path / "restored", settings)):
            with pytest.raises(Refused, match=reason) as raised:
                attempt()
            assert len(str(raised.value).splitlines()) == 1
            assert str(raised.value).startswith(f"{good}: ")
        assert tree(tmp_path) == before

    return check


def test_an_archive_that_is_put_together_again_is_good(settings: Settings, good: Path) -> None:
    pack(good, listed(unpack(good)))
    assert verify(good, settings).manifest.slug == settings.app.slug


@pytest.mark.parametrize(
    ("inserted", "reason"),
    [
        (member("../evil", b"x"), "no path of a file"),
        (member("media/../../evil", b"x"), "no path of a file"),
        (member("/etc/evil", b"x"), "no path of a file"),
        (member("media//evil", b"x"), "no path of a file"),
        (member("media/e\nvil", b"x"), "no path of a file"),
        (member("evil", b"x"), "belongs into no backup"),
        (member("work/evil", b"x"), "belongs into no backup"),
        (member("sessions/lock/evil", b"x"), "belongs into no backup"),
        (member(".env/evil", b"x"), "belongs into no backup"),
        (member("media/link", type=tarfile.SYMTYPE, linkname="/etc"), "neither file nor folder"),
        (member("media/link", type=tarfile.LNKTYPE, linkname=".env"), "neither file nor folder"),
        (member("media/device", type=tarfile.CHRTYPE), "neither file nor folder"),
        (member("media/device", type=tarfile.BLKTYPE), "neither file nor folder"),
        (member("media/fifo", type=tarfile.FIFOTYPE), "neither file nor folder"),
        (member("media/sparse", b"x", type=tarfile.GNUTYPE_SPARSE), "neither file nor folder"),
        (member("media/pictures/one.webp", b"x"), "twice, or out of order"),
        (member("config/late", b"x"), "twice, or out of order"),
        (member("media/suid", b"x", mode=0o4755), "a mode or time"),
    ],
    ids=lambda value: repr(value[0].name) + value[0].type.decode() if isinstance(value, tuple) else "",
)
def test_a_member_that_no_backup_holds_is_refused(
    good: Path, refused: Callable[[str], None], inserted: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    members = unpack(good)
    place = next(index for index, (header, _) in enumerate(members) if header.name == "sessions")
    pack(good, listed([*members[:place], inserted, *members[place:]]))
    refused(reason)


def test_a_file_below_a_file_is_refused(good: Path, refused: Callable[[str], None]) -> None:
    members = unpack(good)
    place = next(index for index, (header, _) in enumerate(members) if header.name == "media/pictures/one.webp") + 1
    pack(good, listed([*members[:place], member("media/pictures/one.webp/evil", b"x"), *members[place:]]))
    refused("below a file")


def test_extensions_of_any_length_are_refused_before_they_are_read(good: Path, refused: Callable[[str], None]) -> None:
    header, content = member("media/" + "z" * 300, b"x")
    pack(good, [(header, content)], tarfile.PAX_FORMAT)
    refused("neither file nor folder")
    name, _ = member("long", type=tarfile.GNUTYPE_LONGNAME)
    name.size = 1 << 40
    good.write_bytes(gzip.compress(name.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)))
    refused("neither file nor folder")


def test_names_of_names_of_names_are_refused(good: Path, refused: Callable[[str], None]) -> None:
    name, content = member("long", b"x" * 512, type=tarfile.GNUTYPE_LONGNAME)
    good.write_bytes(gzip.compress((name.tobuf(tarfile.GNU_FORMAT) + content) * 5000))
    refused("damaged")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda members: [m for m in members if m[0].name != ".env"], r"altered: '\.env' is missing"),
        (lambda members: [*members[:1], *members[2:]], "is missing"),
        (
            lambda members: [
                (header, content[:-1] + b"X" if header.name == "media/pictures/one.webp" else content)
                for header, content in members
            ],
            r"altered: 'media/pictures/one\.webp' is not what its manifest says",
        ),
        (lambda members: [*members[:-1], member("sessions/more"), members[-1]], "belongs into no backup"),
        (lambda members: [*members[:-1], member("sessions/data/x"), members[-1]], "does not name 'sessions/data/x'"),
        (lambda members: members[:-1], "there is no manifest at its end"),
        (lambda members: [*members, member("sessions/data/x")], "something behind its end"),
        (lambda members: [*members[:-1], member("manifest.json", b"{}")], "its manifest is damaged"),
        (lambda members: [*members[:-1], member("manifest.json", b"")], "its manifest is damaged"),
        (lambda members: [*members[:-1], member("manifest.json", b"[" * 100_000)], "damaged: "),
        (lambda members: [*members[:-1], member("manifest.json", members[-1][1] + b" ")], "behind its end"),
        (lambda members: listed(members, format=2), "not of format 1"),
        (lambda members: listed(members, slug="other"), "a backup of 'other'"),
        (lambda members: listed(members, owner=1), "its manifest is damaged"),
        (
            lambda members: listed(members, database={"kind": "oracle", "version": "", "revisions": []}),
            "no database of the kind 'oracle'",
        ),
        (
            lambda members: listed([m for m in members if m[0].name != "data/app.sqlite3"]),
            "no database of the kind 'sqlite'",
        ),
        (
            lambda members: listed(
                [member(h.name, b"no database" * 1000) if h.name == "data/app.sqlite3" else (h, c) for h, c in members]
            ),
            "the database app.sqlite3: file is not a database",
        ),
    ],
)
def test_what_was_altered_is_refused(
    good: Path, refused: Callable[[str], None], change: Callable[[Members], Members], reason: str
) -> None:
    pack(good, change(unpack(good)))
    refused(reason)


def test_a_backup_that_is_cut_off_anywhere_is_refused(settings: Settings, good: Path) -> None:
    content = good.read_bytes()
    for length in (0, 1, 9, 100, len(content) // 2, len(content) - 9, len(content) - 1):
        good.write_bytes(content[:length])
        with pytest.raises(Refused, match=r"damaged|cut off|not a backup"):
            verify(good, settings)


def test_a_bit_that_has_changed_anywhere_is_noticed(settings: Settings, good: Path) -> None:
    good.write_bytes(gzip.compress(gzip.decompress(good.read_bytes()), 0))  # Each bit of it counts.
    content = good.read_bytes()
    for place in range(100, len(content), len(content) // 20):
        altered = bytearray(content)
        altered[place] ^= 16
        good.write_bytes(altered)
        with pytest.raises(Refused):
            verify(good, settings)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        bytes(100_000),
        gzip.compress(b""),
        gzip.compress(b"text"),
        gzip.compress(bytes(100_000)),
        b"\x1f\x8b",
        b"PK\x03\x04" + bytes(3000),
    ],
    ids=["empty", "text", "zeros", "gzip of nothing", "gzip of text", "gzip of zeros", "start of gzip", "zip"],
)
def test_what_is_no_backup_at_all_is_refused(good: Path, refused: Callable[[str], None], content: bytes) -> None:
    good.write_bytes(content)
    refused("not a backup|damaged|cut off")


def test_an_artifact_of_another_kind_is_refused(good: Path, refused: Callable[[str], None]) -> None:
    pack(good, [member("my_service/main.py", b"print()")])
    refused("belongs into no backup")
    with tarfile.open(good, "w") as tar:
        tar.addfile(member("main.py")[0])
    refused("not a backup of this kind")


def test_a_bomb_is_refused_when_it_is_larger_than_the_disk(
    settings: Settings, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, _ = member("media/zeros")
    header.size = 1 << 50
    good.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1_000_000)))
    with pytest.raises(Refused, match="unpacks to more than"):
        restore(good, tmp_path / "restored", settings)
    header, _ = member("data/app.sqlite3")
    header.size = 1 << 50
    good.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1_000_000)))
    with pytest.raises(Exception, match="no room for"):
        verify(good, settings)


def test_more_files_than_can_be_listed_are_refused(
    good: Path, refused: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backup.archive.LONGEST_LIST", 1000)
    refused("more files than a manifest")


def test_a_backup_of_a_newer_version_is_not_restored(settings: Settings, good: Path, tmp_path: Path) -> None:
    database = {"kind": "sqlite", "version": "3", "revisions": ["9999_newer"]}
    pack(good, listed(unpack(good), database=database))
    assert verify(good, settings).manifest.database.revisions == ["9999_newer"]
    with pytest.raises(Refused, match="revision 9999_newer, which this version does not know"):
        restore(good, tmp_path / "restored", settings)
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("place", ["missing", "."])
def test_a_file_that_is_not_there_is_named(settings: Settings, tmp_path: Path, place: str) -> None:
    with pytest.raises(Refused, match=r"cannot be read: No such file|expected a file"):
        verify(tmp_path / place, settings)
