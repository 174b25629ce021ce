"""Rehearsals: a service in use is backed up, restored elsewhere, and started there."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.command import upgrade

from backup.archive import create, restore
from config import ROOT, AppDir, load
from database import connect
from database.migrations import alembic_config
from tests.infrastructure.backup.rehearsals.rehearsal import environment, problems, used

# With the files copied before the database, and half of the large file below, 4 of 10 backups lacked a file.
TIMES = 8


@pytest.fixture
def folder(tmp_path: Path) -> AppDir:
    folder = AppDir(tmp_path / "app")
    folder.make()
    return folder


def rehearse(folder: AppDir, environ: dict[str, str], place: Path, times: int) -> list[Path]:
    """Backups of a service that three processes use, as many as that."""
    # Between the copy of the database and the files that it names, much can happen.
    with (folder.data / "a").open("wb") as file:
        file.truncate(40 << 20)
    settings = load({**environ, "APP_BACKUP__KEEP": str(times)})
    engine = connect(settings.database.url or f"sqlite:///{folder.database}")
    upgrade(alembic_config(engine), "heads")
    engine.dispose()
    folders = [place / str(number) for number in range(times)]
    with used(environ, 3):
        for each in folders:
            each.mkdir()
        return [create(settings, each) for each in folders]


def test_services_restored_on_sqlite_lack_nothing(folder: AppDir, tmp_path: Path) -> None:
    environ = environment(folder.path)
    for path in rehearse(folder, environ, tmp_path, TIMES):
        target = path.parent / "restored"
        restore(path, target, load(environ))
        assert problems(target, folder.path, environ) == []


needs_client = pytest.mark.skipif(not shutil.which("pg_dump"), reason="needs pg_dump: apt install postgresql-client")


@needs_client
def test_a_service_restored_on_postgres_lacks_nothing(
    folder: AppDir, tmp_path: Path, postgres_url: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = environment(folder.path, DATABASE_URL=postgres_url)
    [path] = rehearse(folder, environ, tmp_path, 1)
    monkeypatch.setenv("DATABASE_URL", empty_database)
    monkeypatch.setenv("APP_ENV", "testing")
    restore(path, tmp_path / "restored", load(environ))
    assert problems(tmp_path / "restored", folder.path, {**environ, "DATABASE_URL": empty_database}) == []


def command(environ: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "main.py"), "backup", *map(str, arguments)]
    return subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)


@needs_client
def test_a_database_in_use_is_not_restored_into(folder: AppDir, tmp_path: Path, postgres_url: str) -> None:
    environ = environment(folder.path, DATABASE_URL=postgres_url)
    engine = connect(postgres_url)
    upgrade(alembic_config(engine), "heads")
    engine.dispose()
    made = command(environ, "create")
    assert made.returncode == 0, made.stderr
    refused = command(environ, "restore", made.stdout.strip(), "--to", tmp_path / "a")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "already exists" in refused.stderr
    for secret in ("/@%", "%2F%40%25"):
        assert secret not in refused.stderr
    assert not (tmp_path / "a").exists()


def test_a_program_of_postgres_that_is_missing_is_one_line(folder: AppDir, tmp_path: Path) -> None:
    environ = environment(folder.path, DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x", PATH=str(tmp_path))
    missing = command(environ, "create")
    expected = "Error: pg_dump is not installed; run: apt-get install postgresql-client\n"
    assert (missing.returncode, missing.stderr) == (1, expected)
    assert list((folder.path / "backups").iterdir()) == []


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_one_that_is_stopped_leaves_the_others_and_no_half_of_itself(
    folder: AppDir, migrated_database: Path, number: signal.Signals
) -> None:
    shutil.copyfile(migrated_database, folder.database)
    kept = create(load(environment(folder.path)))
    with (folder.path / "media/large").open("wb") as file:
        file.truncate(4 << 30)
    line = [sys.executable, str(ROOT / "main.py"), "backup", "create"]
    process = subprocess.Popen(line, env=environment(folder.path), stderr=subprocess.DEVNULL)
    wait_for(lambda: any(path.stat().st_size > 100_000 for path in (folder.path / "backups").glob(".partial-*")))
    process.send_signal(number)
    assert process.wait(60) != 0
    assert [path for path in (folder.path / "backups").iterdir() if not path.name.startswith(".")] == [kept]
