"""The counts of jobs, written by many workers at the same time."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from database import connect
from database.job_counts import CountJobs, JobCount
from tests.infrastructure.database.conftest import upgrade

WORKERS, ROUNDS = 4, 20


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_workers_that_write_at_the_same_time_lose_nothing(
    database: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}" if database == "sqlite" else request.getfixturevalue("postgres_url")
    engine = connect(url)
    upgrade(engine)

    def work() -> None:
        counts: Any = CountJobs(engine)
        for _ in range(ROUNDS):
            for actor in ("first", "second"):
                counts.after_process_message(None, SimpleNamespace(actor_name=actor, failed=False))
            counts.after_worker_shutdown(None, None)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(engine) as session:
        rows = session.scalars(select(JobCount)).all()
    engine.dispose()
    assert {row.outcome for row in rows} == {"done"}
    for actor in ("first", "second"):
        assert sum(row.jobs for row in rows if row.actor == actor) == WORKERS * ROUNDS


def counted(engine: Engine) -> dict[str, int]:
    with Session(engine) as session:
        return {row.outcome: row.jobs for row in session.scalars(select(JobCount))}


def job(*, failed: bool) -> Any:
    return SimpleNamespace(actor_name="first", failed=failed)


def test_each_attempt_counts_and_one_that_is_skipped_for_good_has_failed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    counts = CountJobs(engine)
    counts.after_process_message(None, job(failed=False), exception=ValueError())
    counts.after_process_message(None, job(failed=False))
    counts.after_skip_message(None, job(failed=True))
    counts.after_worker_shutdown(None, None)
    assert counted(engine) == {"done": 1, "failed": 2}


def test_they_are_written_while_the_worker_runs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("database.job_counts.COLLECT", 0)
    counts = CountJobs(engine)
    counts.after_process_message(None, job(failed=False))
    counts.timer.join()
    assert counted(engine) == {"done": 1}


def test_without_a_database_they_are_lost_and_the_log_says_so(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    counts = CountJobs(engine)
    for name, now in (("job_count", "away"), ("away", "job_count")):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {now}")
        counts.after_process_message(None, job(failed=False))
        counts.after_worker_shutdown(None, None)
    assert "counts of 1 jobs are lost: " in caplog.text
    assert counted(engine) == {"done": 1}
