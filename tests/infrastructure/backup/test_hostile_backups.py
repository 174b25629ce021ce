"""Backups that are damaged, altered, or made to write where they must not."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from backup.archive import create, restore, verify
from backup.databases import BackupError
from config import Settings

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def whole(settings: Settings) -> Path:
    """A backup in which all is well."""
    return create(settings)


def refuse(path: Path, settings: Settings, folder: Path) -> str:
    """The one line with which `verify` and `restore` refuse it, and nothing is left of the attempt."""
    before = sorted(folder.iterdir())
    with pytest.raises(BackupError) as error:
        verify(path, settings)
    with pytest.raises(BackupError):
        restore(path, folder / "restored", settings)
    assert sorted(folder.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def altered(path: Path, change: Callable[[Members], None]) -> Path:
    """The backup, packed again after a change."""
    with tarfile.open(path) as tar:
        members = [(info, file.read() if (file := tar.extractfile(info)) else b"") for info in tar]
    change(members)
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("/etc/evil"),
        member("media/../../evil"),
        member("evil"),
        member("logs/evil"),
        member("media/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("media/link", tarfile.LNKTYPE, ".env"),
        member("media/device", tarfile.CHRTYPE),
        member("media/pipe", tarfile.FIFOTYPE),
        member("media/pictures/one.webp"),
        member("config/late.yaml"),
    ],
    ids=lambda value: f"{value[0].name}-{value[0].type.decode()}",
)
def test_a_member_that_no_backup_holds_is_refused(
    whole: Path, settings: Settings, tmp_path: Path, evil: tuple[tarfile.TarInfo, bytes]
) -> None:
    refuse(altered(whole, lambda members: members.insert(1, evil)), settings, tmp_path)
    assert not Path("/etc/evil").exists()


def change_a_file(members: Members) -> None:
    number = next(number for number, (info, _) in enumerate(members) if info.name == "media/pictures/one.webp")
    members[number] = (members[number][0], b"two")


def leave_one_out(members: Members) -> None:
    members[:] = [pair for pair in members if pair[0].name != ".env"]


def change_the_manifest(members: Members) -> None:
    info, content = members[-1]
    members[-1] = (info, json.dumps({**json.loads(content), "files": {}}).encode())


@pytest.mark.parametrize("change", [change_a_file, leave_one_out, change_the_manifest, list.pop, list.clear])
def test_what_was_altered_is_refused(
    whole: Path, settings: Settings, tmp_path: Path, change: Callable[[Members], None]
) -> None:
    refuse(altered(whole, change), settings, tmp_path)


def test_a_bit_that_has_changed_anywhere_is_noticed(whole: Path, settings: Settings, tmp_path: Path) -> None:
    content = whole.read_bytes()
    # Not in the header's time and system, which gzip does not check and nobody reads.
    for place in (0, 20, len(content) // 3, len(content) // 2, len(content) - 9, len(content) - 6, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        whole.write_bytes(changed)
        refuse(whole, settings, tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 0.5, -1, -9])
def test_a_backup_that_is_cut_off_is_refused(whole: Path, settings: Settings, tmp_path: Path, kept: float) -> None:
    content = whole.read_bytes()
    whole.write_bytes(content[: int(kept) if kept != 0.5 else len(content) // 2])
    refuse(whole, settings, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", bytes(2000), gzip.compress(b""), gzip.compress(b"text" * 900)],
    ids=["empty", "text", "zeros", "gzip of nothing", "gzip of text"],
)
def test_what_is_no_backup_at_all_is_refused(whole: Path, settings: Settings, tmp_path: Path, content: bytes) -> None:
    whole.write_bytes(content)
    refuse(whole, settings, tmp_path)


def test_a_file_that_is_not_there_is_named(settings: Settings, tmp_path: Path) -> None:
    assert refuse(tmp_path / "missing", settings, tmp_path).startswith(f"{tmp_path}/missing: ")
