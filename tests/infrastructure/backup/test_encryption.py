"""Encrypted backups: only who knows the passphrase reads them, and the standard tool does."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from backup import BackupError, Refused
from backup.create import create
from backup.encryption import encrypt
from backup.restore import restore, verify
from config import Settings
from tests.infrastructure.backup.conftest import FILES

PASSPHRASE = "a long passphrase"


def with_passphrase(settings: Settings, passphrase: str) -> Settings:
    return msgspec.structs.replace(settings, backup=msgspec.structs.replace(settings.backup, passphrase=passphrase))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return with_passphrase(settings, PASSPHRASE)


@pytest.mark.slow  # A passphrase takes seconds on purpose.
def test_an_encrypted_backup_hides_everything_and_comes_back(settings: Settings, tmp_path: Path) -> None:
    done = create(settings)
    assert done.path.name.endswith("Z.tar")
    content = done.path.read_bytes()
    for secret in (b"app.sqlite3", b"media", FILES["sessions/data/abc"], b"SECRET_KEY"):
        assert secret not in content
    with tarfile.open(done.path) as tar:
        assert tar.getnames() == ["key.age", "backup.tar.gz.age"]
    assert verify(done.path, settings).files == done.files
    restored = restore(done.path, tmp_path / "restored", settings)
    for path, expected in FILES.items():
        assert (restored.folder / path).read_bytes() == expected

    for passphrase, reason in (("another", "the passphrase is another one"), ("", "set BACKUP_PASSPHRASE")):
        with pytest.raises(Refused, match=reason):
            restore(done.path, tmp_path / "not", with_passphrase(settings, passphrase))
    altered = bytearray(content)
    altered[len(content) // 2] ^= 1
    done.path.write_bytes(altered)
    with pytest.raises(Refused, match="damaged"):
        verify(done.path, settings)
    done.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Refused, match="damaged"):
        verify(done.path, settings)
    assert not (tmp_path / "not").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("age"), reason="needs age: apt install age")
def test_the_standard_tool_reads_it_by_hand(settings: Settings, tmp_path: Path) -> None:
    """The tool asks for the passphrase on a terminal, so its key is opened by the library it was made with."""
    import pyrage

    done = create(settings)
    subprocess.run(["tar", "xf", done.path], cwd=tmp_path, check=True)
    key = pyrage.passphrase.decrypt((tmp_path / "key.age").read_bytes(), PASSPHRASE)
    (tmp_path / "key").write_bytes(key)
    plain = subprocess.run(
        ["age", "-d", "-i", "key", "backup.tar.gz.age"], cwd=tmp_path, check=True, capture_output=True
    ).stdout
    (tmp_path / "restored").mkdir()
    subprocess.run(["tar", "xz", "-C", "restored"], cwd=tmp_path, input=plain, check=True)
    for path, expected in FILES.items():
        assert (tmp_path / "restored" / path).read_bytes() == expected


def test_a_missing_library_is_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(BackupError, match=r"pyrage is not installed; run `make add PACKAGE=pyrage && make setup`"):
        create(settings)
    assert [place.name for place in settings.app_dir.backups.iterdir()] == ["old.tar.gz"]


@pytest.mark.slow
def test_a_disk_that_is_full_ends_it_with_the_reason(settings: Settings) -> None:
    def fill() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file, encrypt(file, PASSPHRASE) as stream:
            stream.write(bytes(5_000_000))

    with pytest.raises((BackupError, OSError), match="No space left on device"):
        fill()
