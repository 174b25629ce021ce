"""`python main.py doctor` on a healthy installation, and on one with each fault."""

import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from pathlib import Path

import dramatiq
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import create_app, doctor
from app.doctor import CHECKS, Installation, examine
from config import ROOT, AppDir, Settings
from config.appdir import application
from database import connect, sessions, utc_now
from database.messages import QueueMessage
from database.once import DoneOnce
from database.queue_statistics import QueueMinute
from main import cli
from storage.file import FileBackend

VARIABLES = ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL", "PORT", "FLASK_DEBUG")
PATIENCE = 30


@pytest.fixture
def folder(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    """An installation for development, without a worker or a scheduler, and without patience for them."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APP_ENV", "development")
    monkeypatch.setenv("APP_DIR", str(tmp_path / "app"))
    monkeypatch.setattr(doctor, "PATIENCE", 0.05)
    folder = AppDir(tmp_path / "app")
    folder.make()
    shutil.copyfile(migrated_database, folder.database)
    return folder


@pytest.fixture
def session(folder: AppDir) -> Iterator[Session]:
    """A session of the installation's database."""
    engine = connect(f"sqlite:///{folder.database}")
    with sessions(engine)() as session:
        yield session
    engine.dispose()


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["doctor", *arguments])
    assert "Traceback" not in result.output
    return result


def results() -> dict[str, tuple[bool | None, str]]:
    """What was found, by name; the exit code tells the same."""
    result = run("--json")
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == list(CHECKS)
    assert result.exit_code == (1 if any(row["ok"] is False for row in rows) else 0)
    assert all("\n" not in row["detail"] for row in rows)
    return {row["name"]: (row["ok"], row["detail"]) for row in rows}


def files(folder: AppDir) -> set[Path]:
    """All of them but those in which the running processes keep their rows and numbers."""
    running = (folder.data, folder.metrics)
    return {path for path in folder.path.rglob("*") if path.is_file() and path.parent not in running}


@pytest.mark.slow
@pytest.mark.parametrize("server", ["", "postgres", "redis", "rabbitmq"])
def test_a_healthy_installation_passes_and_keeps_nothing_of_it(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, server: str
) -> None:
    if server:
        variable = "DATABASE_URL" if server == "postgres" else "QUEUE_URL"
        monkeypatch.setenv(variable, request.getfixturevalue(f"{server}_url"))
    assert CliRunner().invoke(cli, ["db", "upgrade"]).exit_code == 0
    monkeypatch.setattr(doctor, "PATIENCE", PATIENCE)
    before = files(folder)
    with ExitStack() as running:
        for part in ("queues.py", "scheduler.py"):
            process = subprocess.Popen([sys.executable, str(ROOT / part)], stderr=subprocess.DEVNULL)
            running.callback(process.wait, PATIENCE)
            running.callback(process.terminate)
        deadline = time.monotonic() + PATIENCE
        while (found := results())["scheduler"][0] is not True:
            assert time.monotonic() < deadline, found
    assert {name for name, (ok, _) in found.items() if ok is None} == {"cookies", "last backup"}
    assert [detail for ok, detail in found.values() if ok is False] == []
    assert files(folder) == before
    engine = connect(os.environ.get("DATABASE_URL", f"sqlite:///{folder.database}"))
    with sessions(engine)() as session:
        assert session.scalars(select(DoneOnce)).all() == []
        assert session.scalars(select(QueueMessage)).all() == []
    engine.dispose()


@pytest.mark.parametrize("environment", ["development", "production"])
def test_without_worker_and_scheduler_it_says_so_and_takes_its_message_back(
    folder: AppDir, session: Session, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("APP_ENV", environment)
    found = results()
    assert found["cookies"][0] is (True if environment == "production" else None)
    assert {name for name, (ok, _) in found.items() if ok is False} == {"queue", "scheduler"}
    assert found["queue"][1].startswith(
        "no worker has answered for 0 s, and 0 jobs wait; start one: `python queues.py`"
    )
    assert found["scheduler"][1].startswith("never seen; start it: `python scheduler.py`")
    assert session.scalars(select(QueueMessage)).all() == []
    assert session.scalars(select(DoneOnce)).all() == []


def test_a_worker_that_works_is_enough(folder: AppDir, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_worker(settings: Settings) -> Flask:
        made = create_app(settings)
        worker = dramatiq.Worker(dramatiq.get_broker(), worker_timeout=10, worker_threads=1)
        worker.start()
        workers.append(worker)
        return made

    workers: list[dramatiq.Worker] = []
    monkeypatch.setattr(doctor, "PATIENCE", PATIENCE)
    monkeypatch.setattr("app.create_app", with_worker)
    try:
        ok, detail = results()["queue"]
    finally:
        for worker in workers:
            worker.stop()
    assert ok, detail
    assert session.scalars(select(DoneOnce)).all() == []


def test_people_get_a_line_for_each_check(folder: AppDir) -> None:
    result = run()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == len(CHECKS)
    assert lines[1] == f"ok       app folder   {folder.path}"
    assert lines[4] == "skipped  cookies      only production needs HTTPS"
    assert lines[8].startswith("FAILED   queue        no worker has answered")


def test_wrong_settings_are_the_first_line_and_what_needs_none_is_still_checked(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_WEB__PORT", "x")
    monkeypatch.setenv("APP_QUEUE__THREADS", "y")
    found = results()
    assert found["settings"] == (
        False,
        "environment variable APP_QUEUE__THREADS: queue.threads: expected int, found 'y'; "
        "environment variable APP_WEB__PORT: web.port: expected int, found 'x'",
    )
    assert {name for name, (ok, _) in found.items() if ok} == {"app folder", "disk space", "versions"}
    assert found["queue"] == (None, "needs the service, which cannot start")
    monkeypatch.setenv("APP_DIR", "")
    assert results()["app folder"] == (None, "needs the settings")


def test_a_feature_that_cannot_be_loaded_is_one_line(folder: AppDir) -> None:
    def broken(_settings: Settings) -> Flask:
        raise ImportError("no module\nof that name")

    found = {result.name: result for result in examine(Installation(broken))}
    assert (found["settings"].ok, found["settings"].detail) == (False, "ImportError: no module of that name")
    assert found["secret"].ok
    assert found["database"].ok is None


def write_garbage(folder: AppDir) -> None:
    folder.database.write_bytes(b"no database" * 1000)


def damage_a_table(folder: AppDir) -> None:
    with closing(sqlite3.connect(folder.database)) as connection:
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'queue_minute'")
        [[size]] = connection.execute("PRAGMA page_size")
    content = bytearray(folder.database.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    folder.database.write_bytes(content)


def empty_database(folder: AppDir) -> None:
    folder.database.write_bytes(b"")


def put_file_in_place_of_media(folder: AppDir) -> None:
    shutil.rmtree(folder.path / "media")
    (folder.path / "media").touch()


@pytest.mark.parametrize(
    ("check", "fault", "detail"),
    [
        ("app folder", lambda folder: folder.data.chmod(0o777), "data: mode 0777, expected 0750; run `python main.py"),
        ("app folder", lambda folder: folder.marker.write_text("{"), "appdir.json: is broken, expected "),
        ("app folder", lambda folder: folder.env_file.write_text("PORT\n"), ".env:1: this line: found no `=`"),
        ("settings", lambda folder: folder.env_file.write_text("PORT\n"), ".env:1: this line: found no `=`"),
        ("secret", lambda folder: folder.env_file.unlink(), "SECRET_KEY is not set; run `python main.py appdir make`"),
        ("database", lambda folder: folder.database.unlink(), "is missing; run `python main.py db upgrade`"),
        ("database", write_garbage, "file is not a database; see database.url, set in config/database.yaml"),
        ("database", damage_a_table, "app.sqlite3: "),
        ("migrations", empty_database, "Run: python main.py db upgrade"),
        ("storage", put_file_in_place_of_media, "storage.disks.media, set in config/storage.yaml: "),
    ],
)
def test_a_fault_of_the_folder_is_found(
    folder: AppDir, check: str, fault: Callable[[AppDir], object], detail: str
) -> None:
    fault(folder)
    ok, found = results()[check]
    assert ok is False, found
    assert detail in found


def test_a_missing_database_is_not_made_by_looking_at_it(folder: AppDir) -> None:
    folder.database.unlink()
    found = results()
    assert found["migrations"] == found["queue"] == found["scheduler"] == (None, "needs the database")
    assert not folder.database.exists()


@pytest.mark.parametrize(
    ("check", "variable", "value", "detail"),
    [
        ("debug", "FLASK_DEBUG", "1", "environment variable FLASK_DEBUG: app.debug: found true"),
        ("cookies", "APP_SECURITY__COOKIE_SECURE", "false", "security.cookie_secure: found 'false': expected true"),
        ("secret", "SECRET_KEY", "change-me", "found a weak or well-known secret"),
        ("settings", "SECRET_KEY", "change-me", "found a weak or well-known secret"),
        ("database", "DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/app", "see database.url, set in config/data"),
        ("queue", "QUEUE_URL", "redis://:hunter2@127.0.0.1:1/0", "see queue.url, set in config/queue.yaml"),
    ],
)
def test_a_fault_of_the_settings_is_found(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch, check: str, variable: str, value: str, detail: str
) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv(variable, value)
    result = run()
    [line] = [line for line in result.stdout.splitlines() if line[9:].startswith(check)]
    assert result.exit_code == 1
    assert line.startswith("FAILED")
    assert detail in line
    assert "hunter2" not in result.output


@pytest.mark.parametrize(("age", "ok"), [(timedelta(0), True), (timedelta(minutes=4), False)])
def test_a_scheduler_is_alive_for_as_long_as_it_notes_every_minute(
    folder: AppDir, session: Session, age: timedelta, ok: bool
) -> None:
    session.add(QueueMinute(minute=utc_now() - age, queue="default", waiting=0))
    # One that only a worker has written.
    session.add(QueueMinute(minute=utc_now(), queue="other", waiting=None))
    session.commit()
    found, detail = results()["scheduler"]
    assert found is ok
    assert detail.startswith("last seen " if ok else "last seen 4 min ago; start it: `python scheduler.py`")


def test_a_disk_that_reads_something_else_than_was_written_is_found(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(folder)
    monkeypatch.setattr(FileBackend, "read", lambda *_: b"something else")
    ok, detail = results()["storage"]
    assert ok is False
    assert detail.startswith("storage.disks.default: reads something else than was written")
    assert files(folder) == before


def test_clocks_that_differ_are_found(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(_session: Session) -> datetime:
        return utc_now() - timedelta(seconds=30)

    monkeypatch.setattr(doctor, "database_now", late)
    ok, detail = results()["clock"]
    assert ok is False
    assert detail.startswith("the database's is -30.0 s away from this machine's; let both be set over the network")
    monkeypatch.setattr(doctor, "YEARS", range(1970, 1980))
    assert results()["clock"][1].startswith(f"this machine's says {utc_now():%Y-%m-%d}; ")


@pytest.mark.parametrize(("limit", "value"), [("FREE_BYTES", 10**18), ("FREE_SHARE", 1.0)])
def test_a_full_disk_is_found(folder: AppDir, monkeypatch: pytest.MonkeyPatch, limit: str, value: float) -> None:
    monkeypatch.setattr(doctor, limit, value)
    ok, detail = results()["disk space"]
    assert ok is False
    assert f"free at {folder.path}, expected " in detail


def test_packages_and_python_are_those_of_the_project(folder: AppDir, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\n')
    (tmp_path / "requirements.txt").write_text(
        "# comment==1\nflask==0.1 \\\n    --hash=sha256:00==\nno-such-package==1.0\n"
        "colorama==0 ; sys_platform == 'win32' \\\n"
    )

    def version_check() -> tuple[bool | None, str]:
        installation = Installation(create_app)
        installation.root = tmp_path
        [result] = [result for result in examine(installation) if result.name == "versions"]
        return result.ok, result.detail

    ok, detail = version_check()
    assert ok is False
    assert detail.startswith("flask ")
    assert detail.endswith(", expected ==0.1; no-such-package is missing, expected ==1.0; run `make setup`")
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=4"\n')
    assert ", expected >=4; " in version_check()[1]


def test_the_age_of_the_last_backup_is_told(folder: AppDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert results()["last backup"][0] is None
    backup = folder.backups / f"{application()}-20260101T000000Z.tar.gz"
    backup.touch()
    os.utime(backup, (time.time() - 7200, time.time() - 7200))
    assert results()["last backup"] == (True, f"2 h ago in {folder.backups}")
    (folder.backups / f"{backup.name}.partial").touch()
    assert results()["last backup"] == (True, f"2 h ago in {folder.backups}")
    monkeypatch.setenv("APP_BACKUP__FOLDER", "elsewhere")
    assert str(folder.path / "elsewhere") in results()["last backup"][1]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_checks_as_the_service_and_leaves_nothing_of_its_own(migrated_database: Path, open_project: Path) -> None:
    service = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="test-doctor-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        folder = AppDir(Path(place, "app"))
        folder.make(service.pw_name)
        shutil.copyfile(migrated_database, folder.database)
        os.chown(folder.database, service.pw_uid, service.pw_gid)

        def passed() -> set[str]:
            # The service is made once as root: others may not be able to read where its packages are.
            code = "import svcs; from app import create_app, doctor; svcs.flask.close_registry(create_app())\n"
            code += "doctor.PATIENCE = 0.05; from main import cli; cli(['doctor', '--json'])"
            variables = {"APP_DIR": str(folder.path), "APP_ENV": "development", "PATH": os.environ["PATH"]}
            command = [sys.executable, "-c", code]
            result = subprocess.run(
                command,
                cwd=open_project,
                env=variables,
                stdout=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            return {row["name"] for row in json.loads(result.stdout) if row["ok"]}

        assert {"app folder", "database", "storage", "clock"} <= passed()
        assert {path.owner() for path in folder.data.rglob("*")} == {service.pw_name}
        assert folder.check(service.pw_name) == []
        # What root could do and the service cannot is a fault.
        (folder.path / "media" / ".partial").chmod(0o500)
        assert "storage" not in passed()
