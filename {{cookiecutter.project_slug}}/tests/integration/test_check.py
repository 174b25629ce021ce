"""`python main.py check` on a healthy installation, and on one with each fault."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import check, create_app
from config import AppDir, Settings
from database import connect, sessions, utc_now
from database.schedule import SCHEDULES, ScheduleSlot, send_due
from main import cli

VARIABLES = ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL", "PORT", "FLASK_DEBUG")
NAMES = ["settings", "app folder", "disk space", "services", "migrations", "pages", "clock", "scheduler", "worker"]
Found = dict[str, tuple[str, str]]


@pytest.fixture
def folder(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    """An installation for development, without a worker or a scheduler."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APP_ENV", "development")
    monkeypatch.setenv("APP_DIR", str(tmp_path / "app"))
    monkeypatch.setattr(check, "PATIENCE", 0.05)
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
    return CliRunner().invoke(cli, ["check", *arguments], catch_exceptions=False)


def results() -> Found:
    """The result of each check and what it says; the exit code tells the same."""
    result = run("--json")
    found = {row["check"]: (row["result"], row["detail"]) for row in json.loads(result.stdout)}
    assert list(found) == NAMES
    assert result.exit_code == (1 if any(mark == "FAILED" for mark, _ in found.values()) else 0)
    return found


def marks(found: Found) -> dict[str, str]:
    return {name: mark for name, (mark, _) in found.items() if mark != "ok"}


def dealt_with(session: Session) -> None:
    """As if a scheduler ran, for the schedules of all features once one check has loaded them."""
    for schedule in SCHEDULES.values():
        send_due(schedule, session, utc_now(), enabled=False)
    session.commit()


def test_a_healthy_installation_passes(folder: AppDir, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_worker(settings: Settings) -> Flask:
        made = create_app(settings)
        workers.append(dramatiq.Worker(dramatiq.get_broker(), worker_timeout=10, worker_threads=1))
        workers[-1].start()
        return made

    workers: list[dramatiq.Worker] = []
    results()
    dealt_with(session)
    monkeypatch.setattr(check, "create_app", with_worker)
    monkeypatch.setattr(check, "PATIENCE", 20)
    try:
        found = results()
    finally:
        for worker in workers:
            worker.stop()
    assert marks(found) == {}


def test_people_get_a_line_for_each(folder: AppDir) -> None:
    result = run()
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["CHECK", "RESULT", "DETAIL"]
    assert [line.startswith(name) for line, name in zip(lines, NAMES, strict=True)] == [True] * len(NAMES)


def test_without_worker_and_scheduler_it_says_so_and_takes_its_job_back(folder: AppDir, session: Session) -> None:
    found = results()
    assert marks(found) == {"scheduler": "skipped", "worker": "skipped"}
    assert "`python queues.py`" in found["worker"][1]
    assert "`python scheduler.py`" in found["scheduler"][1]
    assert session.connection().exec_driver_sql("SELECT count(*) FROM queue_message").scalar() == 0


def test_a_scheduler_that_no_longer_runs_is_found(folder: AppDir, session: Session) -> None:
    results()
    dealt_with(session)
    assert results()["scheduler"][0] == "ok"
    for row in session.scalars(select(ScheduleSlot)):
        row.slot -= timedelta(days=400)
    # A job that was sent by hand says nothing of a scheduler.
    session.add(ScheduleSlot(schedule="remove_expired", slot=utc_now(), outcome="sent"))
    session.commit()
    mark, detail = results()["scheduler"]
    assert mark == "FAILED"
    assert detail.startswith("nothing was sent at ")


def test_it_says_that_the_clock_was_ahead(folder: AppDir, session: Session) -> None:
    results()
    dealt_with(session)
    ahead = utc_now() + timedelta(days=1461)
    session.execute(update(ScheduleSlot).values(sent=ahead))
    session.commit()
    assert results()["clock"] == ("ok", f"{utc_now():%Y-%m-%d %H:%M} UTC; once it was ahead, at {ahead:%Y-%m-%d %H:%M}")


def test_a_clock_that_differs_from_the_databases_is_found(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    now = utc_now()
    monkeypatch.setattr(check, "utc_now", lambda: now - timedelta(hours=1))
    mark, detail = results()["clock"]
    assert mark == "FAILED"
    assert "timedatectl" in detail


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("PORT", "config/web.ini: web.port: expected int, found 'x'"),
        ("QUEUE_URL", "config/queue.yaml: queue.url: found 'x': expected "),
        ("DATABASE_URL", "config/database.yaml: database.url: found 'x': expected a URL"),
        ("APP_APP__FEATURES", "environment variable APP_APP__FEATURES: app.features: expected array, found 'x'"),
        ("APP_SECURITY__RATE_LIMITS__LOGIN", "security.rate_limits.login: expected str matching regex"),
        ("APP_LOGGING__ROOT__LEVEL", "config/logging.json: Unknown level: 'x'"),
    ],
)
def test_wrong_settings_are_said_and_what_needs_none_is_checked(
    folder: AppDir, monkeypatch: pytest.MonkeyPatch, variable: str, reason: str
) -> None:
    monkeypatch.setenv(variable, "x")
    found = results()
    assert found["settings"][0] == "FAILED"
    assert reason in found["settings"][1]
    assert (found["app folder"][0], found["disk space"][0]) == ("ok", "ok")
    assert {found[name] for name in NAMES[3:]} == {("skipped", "needs the settings")}


def test_a_database_that_is_away_is_one_failure(folder: AppDir) -> None:
    shutil.rmtree(folder.data)
    found = results()
    assert {name for name, mark in marks(found).items() if mark == "FAILED"} == {"app folder", "services", "pages"}
    assert "unable to open database file" in found["services"][1]
    assert found["migrations"] == ("skipped", "needs the database")
    assert found["app folder"][1].endswith("run `python main.py appdir make`")


def test_migrations_that_wait_are_found(folder: AppDir) -> None:
    folder.database.unlink()
    assert "Run: python main.py db upgrade" in results()["migrations"][1]


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
