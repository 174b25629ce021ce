"""Rehearsals: a service in use is backed up, restored elsewhere, and started there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backup.create import create
from backup.restore import restore, verify
from config import ROOT, AppDir, load
from database import connect
from database.migrations import upgrade
from tests.infrastructure.backup.rehearsals.rehearsal import environment, problems, used

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> AppDir:
    folder = AppDir(tmp_path / "app")
    folder.make()
    return folder


def rehearse(folder: AppDir, environ: dict[str, str], place: Path, back: dict[str, str]) -> None:
    """Twice, since what may go wrong does not always."""
    # Between the copy of the database and the files that it names, much can happen.
    with (folder.data / "a").open("wb") as file:
        file.truncate(200 << 20)
    settings = load(environ)
    engine = connect(settings.database.url or f"sqlite:///{folder.database}")
    upgrade(engine)
    engine.dispose()
    with used(environ, 3):
        for number in range(2):
            done = create(settings)
            assert done.vanished == done.not_included == []
            if number == 0:
                kept = done.path
    verified = verify(kept, settings)
    assert verified.files > 10
    with pytest.MonkeyPatch.context() as patched:
        for name, value in back.items():
            patched.setenv(name, value)
        patched.setenv("APP_ENV", "testing")
        for path in (kept, done.path):
            target = place / path.name
            restore(path, target, settings)
            assert problems(target, folder.path, {**environ, **back}) == []
            if back:
                break


def test_a_restored_service_on_sqlite_lacks_nothing(folder: AppDir, tmp_path: Path) -> None:
    rehearse(folder, environment(folder.path), tmp_path, {})


needs_client = pytest.mark.skipif(not shutil.which("pg_dump"), reason="needs pg_dump: apt install postgresql-client")


@needs_client
def test_a_restored_service_on_postgres_lacks_nothing(
    folder: AppDir, tmp_path: Path, postgres_url: str, empty_database: str
) -> None:
    environ = environment(folder.path, DATABASE_URL=postgres_url)
    rehearse(folder, environ, tmp_path, {"DATABASE_URL": empty_database})


def command(environ: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "main.py"), "backup", *map(str, arguments)]
    return subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)


@needs_client
def test_a_database_in_use_is_not_restored_into_and_none_is_damaged(
    folder: AppDir, tmp_path: Path, postgres_url: str, empty_database: str
) -> None:
    environ = environment(folder.path, DATABASE_URL=postgres_url)
    engine = connect(postgres_url)
    upgrade(engine)
    engine.dispose()
    made = command(environ, "create")
    assert made.returncode == 0, made.stderr
    backup = made.stdout.strip()

    refused = command(environ, "restore", backup, "--to", tmp_path / "a")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "tables and sequences; name an empty one" in refused.stderr
    for secret in ("/@%", "%2F%40%25"):
        assert secret not in refused.stderr

    elsewhere = {**environ, "DATABASE_URL": empty_database}
    assert (
        command({**environ, "DATABASE_URL": "sqlite:////nowhere"}, "restore", backup, "--to", tmp_path / "a").returncode
        == 2
    )
    assert not (tmp_path / "a").exists()
    restored = command(elsewhere, "restore", backup, "--to", tmp_path / "a")
    assert restored.returncode == 0, restored.stderr
    assert "write DATABASE_URL" in restored.stdout
    assert not (tmp_path / "a/database.dump").exists()
    assert command(elsewhere, "restore", backup, "--to", tmp_path / "b").returncode == 2
    assert not (tmp_path / "b").exists()


def test_a_program_of_postgres_that_is_missing_or_too_old_is_one_line(
    folder: AppDir, tmp_path: Path, postgres_url: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    environ = environment(folder.path, DATABASE_URL=postgres_url, PATH=str(programs))
    missing = command(environ, "create")
    assert (missing.returncode, missing.stderr) == (
        1,
        "Error: pg_dump is not installed: apt-get install postgresql-client\n",
    )
    (programs / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    (programs / "pg_dump").chmod(0o755)
    old = command(environ, "create")
    assert old.returncode == 1
    assert "pg_dump 9 is too old for the server's" in old.stderr
    assert "apt-get install postgresql-client-" in old.stderr
    assert list(folder.backups.iterdir()) == list(folder.work.glob("backup-*")) == []


@pytest.fixture
def large(folder: AppDir, migrated_database: Path) -> AppDir:
    """An installation whose backup takes seconds, and one backup of it before it became so large."""
    shutil.copyfile(migrated_database, folder.database)
    create(load(environment(folder.path)))
    with (folder.path / "media/large").open("wb") as file:
        file.truncate(4 << 30)
    return folder


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_was_begun_is_gone_and_what_was_there_is_kept(large: AppDir, number: signal.Signals) -> None:
    before = list(large.backups.iterdir())
    line = [sys.executable, str(ROOT / "main.py"), "backup", "create"]
    process = subprocess.Popen(line, env=environment(large.path), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(path.stat().st_size > 100_000 for path in large.backups.glob("*.partial")))
    assert command(environment(large.path), "create").stderr.startswith("Error: another backup is being made")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert len(list(large.backups.glob("*.partial"))) == 1
        (large.path / "media/large").unlink()
        assert command(environment(large.path), "create").returncode == 0
        assert len(list(large.backups.iterdir())) == 2
    else:
        assert (process.returncode, errors.strip()) == (1, "Aborted!")
        assert list(large.backups.iterdir()) == before
    assert list(large.backups.glob("*.partial")) == list(large.work.glob("backup-*")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_line_and_what_was_there_is_kept(
    folder: AppDir, migrated_database: Path, small_disk: Path
) -> None:
    shutil.copyfile(migrated_database, folder.database)
    environ = environment(folder.path)
    kept = command(environ, "create", small_disk).stdout.strip()
    (folder.path / "media/large").write_bytes(os.urandom(3_000_000))
    for more in ({}, {"BACKUP_PASSPHRASE": "a long passphrase"}):
        full = command({**environ, **more}, "create", small_disk, "--keep", 1)
        assert (full.returncode, full.stderr.count("\n")) == (1, 1)
        assert "No space left on device" in full.stderr
        assert [str(path) for path in small_disk.iterdir()] == [kept]

    large = command(environ, "create").stdout.strip()
    refused = command(environ, "restore", large, "--to", small_disk / "restored")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "bytes that are free" in refused.stderr
    assert [str(path) for path in small_disk.iterdir()] == [kept]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_somebody_without_rights_restores_modes_and_is_told_what_is_not_readable(
    folder: AppDir, migrated_database: Path, tmp_path: Path
) -> None:
    shutil.copyfile(migrated_database, folder.database)
    (folder.path / "media/a").write_bytes(b"a")
    (folder.path / "media/a").chmod(0o604)
    backup = Path(command(environment(folder.path), "create").stdout.strip())
    plain = Path("/tmp") / f"plain-{os.getpid()}"
    plain.mkdir(mode=0o777)
    plain.chmod(0o777)
    try:
        shutil.copyfile(backup, plain / backup.name)
        (plain / backup.name).chmod(0o644)
        line = [
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            sys.executable,
            "-B",
            str(ROOT / "main.py"),
        ]
        environ = environment(plain / "app", HOME=str(plain))
        done = subprocess.run(
            [*line, "backup", "restore", str(plain / backup.name), "--to", str(plain / "app")],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if "Permission denied" in done.stderr and "main.py" in done.stderr:
            pytest.skip("the project's folder cannot be read by others")
        assert done.returncode == 0, done.stderr
        assert (plain / "app/media/a").stat().st_mode & 0o777 == 0o604
        assert (plain / "app/.env").stat().st_mode & 0o777 == 0o600
        (plain / "app/media/a").chmod(0)
        again = subprocess.run([*line, "backup", "create"], env=environ, capture_output=True, text=True, check=False)
        assert (again.returncode, again.stderr.count("\n")) == (1, 1)
        assert "media/a': cannot be read: Permission denied" in again.stderr
    finally:
        shutil.rmtree(plain)
