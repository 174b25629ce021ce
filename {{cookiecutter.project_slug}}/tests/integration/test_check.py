"""`python main.py check` on a healthy installation, and on one with each fault."""

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest
from click.testing import CliRunner, Result
from flask import Flask

from app import check, create_app
from config import AppDir, Settings
from database import connect, sessions, utc_now
from database.broker import QueueMessage
from database.schedule import ScheduleSlot
from main import cli

NAMES = ["app folder", "disk space", "settings", "migrations", "services", "pages", "clock", "worker", "mail"]
Found = dict[str, tuple[str, str]]


@pytest.fixture
def folder(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    """An installation for development, without a worker."""
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL", "MAIL_URL", "PORT", "FLASK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APP_ENV", "development")
    monkeypatch.setenv("APP_DIR", str(tmp_path / "app"))
    monkeypatch.setattr(check, "PATIENCE", 0.05)
    folder = AppDir(tmp_path / "app")
    folder.make()
    shutil.copyfile(migrated_database, folder.database)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments], catch_exceptions=False)


def results() -> Found:
    """The result of each check and what it says; the exit code tells the same. What would fail too is not checked."""
    result = run("--json")
    found = {row["check"]: (row["result"], row["detail"]) for row in json.loads(result.stdout)}
    failed = [name for name, (mark, _) in found.items() if mark == "FAILED"]
    assert result.exit_code == bool(failed)
    assert list(found) == NAMES[: len(found)]
    assert list(found)[-1] == (failed[-1] if failed and failed[-1] in NAMES[2:] else "mail")
    return found


def test_a_healthy_installation_passes(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_worker(settings: Settings) -> Flask:
        made = create_app(settings)
        workers.append(dramatiq.Worker(dramatiq.get_broker(), worker_timeout=10, worker_threads=1))
        workers[-1].start()
        return made

    workers: list[dramatiq.Worker] = []
    monkeypatch.setattr(check, "create_app", with_worker)
    monkeypatch.setattr(check, "PATIENCE", 20)
    try:
        found = results()
    finally:
        for worker in workers:
            worker.stop()
    assert {mark for mark, _ in found.values()} == {"ok"}


def test_people_get_a_line_for_each(folder: AppDir) -> None:
    header, *lines = run().stdout.splitlines()
    assert header.split() == ["CHECK", "RESULT", "DETAIL"]
    assert [line.startswith(name) for line, name in zip(lines, NAMES, strict=True)] == [True] * len(NAMES)


def test_without_a_worker_it_says_so_and_takes_its_job_back(folder: AppDir) -> None:
    mark, detail = results()["worker"]
    assert mark == "skipped"
    assert "`python queues.py`" in detail
    engine = connect(f"sqlite:///{folder.database}")
    with sessions(engine)() as session:
        assert session.query(QueueMessage).count() == 0
    engine.dispose()


def test_it_says_that_the_clock_was_ahead(folder: AppDir) -> None:
    ahead = utc_now() + timedelta(days=1461)
    engine = connect(f"sqlite:///{folder.database}")
    with sessions(engine).begin() as session:
        session.add(ScheduleSlot(schedule="remove_expired", slot=utc_now(), outcome="sent", sent=ahead))
    engine.dispose()
    mark, detail = results()["clock"]
    assert mark == "ok"
    assert detail.endswith(f" UTC; once it was ahead, at {ahead:%Y-%m-%d %H:%M}")


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("PORT", "config/web.ini: web.port: expected int, found 'x'"),
        ("QUEUE_URL", "config/queue.yaml: queue.url: found 'x': expected "),
        ("APP_LOGGING__ROOT__LEVEL", "config/logging.json: Unknown level: 'x'"),
    ],
)
def test_wrong_settings_are_said_and_what_needs_none_is_checked(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch, variable: str, reason: str
) -> None:
    monkeypatch.setenv(variable, "x")
    found = results()
    assert reason in found["settings"][1]
    assert [mark for mark, _ in found.values()] == ["ok", "ok", "FAILED"]


def test_a_database_that_is_away_is_found(folder: AppDir) -> None:
    shutil.rmtree(folder.data)
    found = results()
    assert [mark for mark, _ in found.values()] == ["FAILED", "ok", "ok", "FAILED"]
    assert found["app folder"][1].endswith("run `python main.py appdir make`")
    assert "unable to open database file" in found["migrations"][1]


def test_migrations_that_wait_are_found(folder: AppDir) -> None:
    folder.database.unlink()
    mark, detail = results()["migrations"]
    assert mark == "FAILED"
    assert "Run: python main.py db upgrade" in detail


def test_a_disk_that_is_nearly_full_is_found(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (10**12, 10**12, 10**9))
    mark, detail = results()["disk space"]
    assert mark == "FAILED"
    assert f"`du -xh --max-depth=2 {folder.path}`" in detail


def test_a_page_that_fails_is_found(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> Flask:
        made = create_app(settings)
        monkeypatch.setitem(made.view_functions, "index", lambda: 1 / 0)
        return made

    monkeypatch.setattr(check, "create_app", broken)
    assert results()["pages"] == ("FAILED", "/ answers 500 INTERNAL SERVER ERROR; the log says why")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the service's user")
def test_root_checks_as_the_owner_of_the_data(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[int] = []
    for name in ("initgroups", "setgroups", "setgid"):
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(os, "setuid", became.append)
    os.chown(folder.data, 65534, 65534)
    run()
    assert became[0] == 65534


def test_a_mail_server_that_is_away_is_found(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_URL", "smtp://127.0.0.1:1")
    mark, detail = results()["mail"]
    assert mark == "FAILED"
    assert detail.endswith("Connection refused; see where: `python main.py config show`")
