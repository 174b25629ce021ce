"""The counts behind the chart: what workers did, by hour."""

from collections.abc import Callable
from typing import Any

from flask import Flask
from sqlalchemy import select

from app.services import transaction
from database.job_counts import JobCount


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
