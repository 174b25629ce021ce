"""The counts behind the chart: what workers did, by hour."""

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import svcs
from flask import Flask
from sqlalchemy import Engine, select, text

from app.services import transaction
from database.job_counts import CountJobs, JobCount


def counts(app: Flask) -> dict[str, int]:
    with transaction(app) as session:
        rows = session.scalars(select(JobCount).where(JobCount.actor == "test_fragile")).all()
    # The hour may end while a test runs.
    return {outcome: sum(row.jobs for row in rows if row.outcome == outcome) for outcome in {r.outcome for r in rows}}


def test_workers_add_up_what_they_have_done(app: Flask, fragile: Any, work: Callable[[], int]) -> None:
    for problem in ("", "", "broken"):
        fragile.send(problem)
    work()
    assert counts(app) == {"done": 2, "failed": 1}
    fragile.send()
    work()
    assert counts(app) == {"done": 3, "failed": 1}


def test_each_attempt_counts(app: Flask, fragile: Any, work: Callable[[], int]) -> None:
    fragile.send_with_options(args=("broken",), max_retries=2, min_backoff=1, max_backoff=2)
    assert work() == 1
    assert counts(app) == {"failed": 3}


def test_a_job_that_is_skipped_for_good_has_failed(app: Flask, fragile: Any, work: Callable[[], int]) -> None:
    fragile.send_with_options(max_age=-1)
    assert work() == 1
    assert counts(app) == {"failed": 1}


def test_they_are_written_while_the_worker_runs(app: Flask, fragile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("database.job_counts.COLLECT", 0)
    with app.app_context():
        middleware = CountJobs(svcs.flask.get(Engine))
    middleware.after_process_message(None, dramatiq.MessageProxy(fragile.message()))
    middleware.timer.join()
    assert counts(app) == {"done": 1}


def test_without_a_database_they_are_lost_and_the_log_says_so(
    app: Flask, fragile: Any, work: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    with transaction(app) as session:
        session.execute(text("ALTER TABLE job_count RENAME TO away"))
    fragile.send()
    work()
    assert "counts of 1 jobs are lost: " in caplog.text
    with transaction(app) as session:
        session.execute(text("ALTER TABLE away RENAME TO job_count"))
    fragile.send()
    work()
    assert counts(app) == {"done": 1}
