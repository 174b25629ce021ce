"""The counts of jobs, written by many workers at the same time."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select
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
