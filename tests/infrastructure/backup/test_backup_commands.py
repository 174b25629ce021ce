"""`main.py backup`, without an app."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backup.lock import no_removals
from config import Settings
from main import cli


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["backup", *map(str, arguments)])


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("APP_DIR", str(settings.app_dir.path))
    for name in ("APP_ENV", "SECRET_KEY", "DATABASE_URL", "STORAGE_URL", "BACKUP_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    return settings


@pytest.fixture
def backup(settings: Settings) -> Path:
    return Path(run("create").stdout.strip())


def test_create_prints_the_path(settings: Settings) -> None:
    result = run("create")
    assert (result.exit_code, result.stderr) == (0, "")
    assert Path(result.stdout.strip()).parent == settings.app_dir.backups


def test_create_takes_a_folder_and_prunes_there(settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "backups"
    place.mkdir()
    first = Path(run("create", place).stdout.strip())
    told = json.loads(run("create", place, "--keep", "1", "--json").stdout)
    assert told["pruned"] == [str(first)]
    assert [str(path) for path in place.iterdir()] == [told["path"]]
    assert told["files"] > 5
    assert told["not_included"] == told["vanished"] == []


def test_what_is_not_in_a_backup_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORAGE_URL", "s3://bucket")
    result = run("create")
    assert "not included: disk media: its files are at s3://bucket/media" in result.stderr
    monkeypatch.delenv("STORAGE_URL")
    restored = run("restore", result.stdout.strip(), "--to", tmp_path / "restored")
    assert "not in the backup: disk media: its files are at s3://bucket/media" in restored.stderr


def test_list_shows_the_oldest_first(settings: Settings, backup: Path) -> None:
    sealed = backup.with_name(f"{settings.app.slug}-20240102T030405Z.tar")
    sealed.touch()
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["0", "2024-01-02", "03:04", sealed.name, "encrypted"]
    assert lines[1].endswith(backup.name)
    rows = json.loads(run("list", "--json").stdout)
    assert rows[0] == {"path": str(sealed), "created": "2024-01-02T03:04:05+00:00", "size": 0, "encrypted": True}
    assert (rows[1]["path"], rows[1]["size"]) == (str(backup), backup.stat().st_size)


def test_list_of_a_folder_that_is_not_there_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_BACKUP__FOLDER", "nowhere")
    result = run("list")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "nowhere: No such file or directory" in result.stderr


def test_verify_says_what_it_is(settings: Settings, backup: Path) -> None:
    result = run("verify", backup)
    assert result.exit_code == 0
    assert result.stdout.startswith("ok: ")
    told = json.loads(run("verify", backup, "--json").stdout)
    assert (told["slug"], told["database"]["kind"]) == (settings.app.slug, "sqlite")


def test_restore_works_without_an_installation_and_says_what_comes_next(
    settings: Settings, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = backup.rename(tmp_path / "kept.tar.gz")
    shutil.rmtree(settings.app_dir.path)
    result = run("restore", backup, "--to", tmp_path / "restored")
    assert result.exit_code == 0, result.output
    assert "next:" in result.stdout
    for command in ("appdir make --user", "check"):
        assert f"APP_DIR={tmp_path / 'restored'} python main.py {command}" in result.stdout
    assert (tmp_path / "restored/data/app.sqlite3").exists()


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_what_is_refused_is_one_line_and_exit_2(backup: Path, tmp_path: Path, command: str) -> None:
    backup.write_bytes(b"something else")
    target = ["--to", str(tmp_path / "restored")] if command == "restore" else []
    result = run(command, backup, *target)
    assert (result.exit_code, result.stderr) == (2, f"Error: {backup}: not a backup\n")


def test_what_fails_is_one_line_and_exit_1(settings: Settings) -> None:
    with no_removals(settings.app_dir):
        result = run("create")
    assert result.exit_code == 1
    assert result.stderr == "Error: another backup is being made; try again when it is done\n"


def test_a_library_that_is_missing_is_one_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_PASSPHRASE", "a passphrase")
    monkeypatch.setitem(sys.modules, "pyrage", None)
    result = run("create")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_a_passphrase_may_lie_in_a_file(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("a passphrase\n")
    monkeypatch.setenv("APP_BACKUP__PASSPHRASE__FILE", str(tmp_path / "passphrase"))
    monkeypatch.setitem(sys.modules, "pyrage", None)
    assert "pyrage is not installed" in run("create").stderr
