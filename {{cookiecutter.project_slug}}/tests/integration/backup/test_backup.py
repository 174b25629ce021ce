"""What the service relies on: rows and files come back from one file."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner, Result

from app.accounts import User
from backup.commands import backup
from config import Settings
from storage.disks import Disks
from tests.conftest import SECRET


def run(settings: Settings, *arguments: str | Path) -> Result:
    environ = {"APP_ENV": "testing", "APP_DIR": str(settings.app_dir.path), "SECRET_KEY": SECRET}
    return CliRunner().invoke(backup, [str(argument) for argument in arguments], env=environ)


def test_a_backup_restores_rows_and_files_into_an_empty_folder(
    settings: Settings, user: User, disks: Disks, tmp_path: Path
) -> None:
    settings.app_dir.make()
    disks["media"].write("pictures/ada.webp", b"picture")

    created = run(settings, "create")
    assert created.exit_code == 0, created.output
    found = re.search(r"\S+\.tar\.gz", created.output)
    assert found
    assert run(settings, "verify", found[0]).exit_code == 0
    restored = run(settings, "restore", found[0], "--to", tmp_path / "restored")
    assert restored.exit_code == 0, restored.output

    assert (tmp_path / "restored/media/pictures/ada.webp").read_bytes() == b"picture"
    with closing(sqlite3.connect(tmp_path / "restored/data/app.sqlite3")) as database:
        assert database.execute("SELECT username FROM user_account").fetchall() == [(user.username,)]
