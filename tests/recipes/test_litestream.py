"""Litestream copies what the service writes, and what it has copied comes back after the database is lost."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from app.accounts import User
from app.jobs import do_nothing
from app.services import transaction
from config import ROOT, Settings

PATIENCE = 60
PAGE = (ROOT / "docs/recipes/litestream.md").read_text()
PROGRAM = shutil.which("litestream")
assert PROGRAM, "needs litestream on the PATH"


class Litestream:
    """The program with the recipe's settings, whose paths are those of the test."""

    def __init__(self, settings: Settings, tmp_path: Path) -> None:
        self.database, self.config = settings.app_dir.database, tmp_path / "litestream.yml"
        self.places = {
            "/opt/litestream/bin/litestream": str(PROGRAM),
            "/srv/my_service/app/deploy/litestream.yml": str(self.config),
            "/srv/my_service/shared": str(settings.app_dir.path),
            "/mnt/elsewhere": str(tmp_path),
        }
        self.config.write_text(self.here((ROOT / "deploy/litestream.yml").read_text()))
        self.process: subprocess.Popen[bytes] | None = None

    def here(self, text: str) -> str:
        for place, other in self.places.items():
            text = text.replace(place, other)
        return text

    def start(self) -> None:
        unit = (ROOT / "deploy/litestream.service").read_text()
        [command] = re.findall("ExecStart=(.*)", self.here(unit))
        self.process = subprocess.Popen(command.split(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def restore(self, *options: str) -> bool:
        """Restore as the page says, but the newest state; whether there was one."""
        [line] = re.findall(r"-- (/opt.*litestream restore .*)", PAGE)
        command = re.sub("-timestamp [^ ]+ ", "", self.here(line)).split()
        return subprocess.run([*command[:2], *options, *command[2:]], capture_output=True, check=False).returncode == 0


@pytest.fixture
def litestream(settings: Settings, tmp_path: Path) -> Iterator[Litestream]:
    litestream = Litestream(settings, tmp_path)
    yield litestream
    litestream.kill()


@pytest.fixture
def main(settings: Settings) -> Callable[..., None]:
    """Runs a command of main.py on the test's app folder."""

    def run(*words: str) -> None:
        environ = {"APP_ENV": "testing", "APP_DIR": str(settings.app_dir.path)}
        result = subprocess.run(
            [sys.executable, "main.py", *words], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr

    return run


def write(app: Flask, names: list[str]) -> None:
    """Accounts, each with a job of the same transaction."""
    for name in names:
        with transaction(app) as session:
            session.add(User(username=name, email=f"{name}@example.org", password_hash="x"))
            do_nothing.send()


def rows(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        counts = [f"(SELECT count(*) FROM {table})" for table in ("user_account", "queue_message")]
        return list(connection.execute(f"SELECT {', '.join(counts)}").fetchone())


def wait_until_copied(litestream: Litestream, target: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not litestream.restore("-force", "-o", str(target)) or rows(target) != rows(litestream.database):
        assert time.monotonic() < deadline, "it was not copied"
        time.sleep(0.1)


def test_what_was_copied_is_there_after_the_database_is_lost(
    app: Flask, settings: Settings, litestream: Litestream, main: Callable[..., None], tmp_path: Path
) -> None:
    settings.app_dir.make()
    litestream.start()
    write(app, [f"first{number}" for number in range(300)])
    wait_until_copied(litestream, tmp_path / "first")

    # While it is down, the service empties the log that Litestream reads from.
    litestream.kill()
    write(app, [f"second{number}" for number in range(300)])
    with closing(sqlite3.connect(litestream.database)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    litestream.start()
    write(app, [f"third{number}" for number in range(300)])
    wait_until_copied(litestream, tmp_path / "second")

    litestream.kill()
    for path in litestream.database.parent.glob("app.sqlite3*"):
        path.unlink()
    assert litestream.restore()
    assert rows(litestream.database) == [900, 900]
    with closing(sqlite3.connect(litestream.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    main("db", "check")
    main("check")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit, text = tmp_path / "litestream.service", (ROOT / "deploy/litestream.service").read_text()
    unit.write_text(text.replace("/opt/litestream/bin/litestream", str(PROGRAM)))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
