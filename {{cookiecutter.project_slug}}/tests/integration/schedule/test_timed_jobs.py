"""A timed job of a team: from its schedule through the queue to a worker, and its commands."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from flask import Flask

from app.services import transaction
from database.schedule import SCHEDULES, scheduled, send_due

THREE = datetime(2026, 1, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)

Run = Callable[..., Any]


@pytest.fixture
def reports(app: Flask) -> Iterator[list[str]]:
    """The slots for which `report`, which is due at three every night, has run."""
    done: list[str] = []

    @scheduled("0 3 * * *")
    @dramatiq.actor(actor_name="test_report", max_retries=0)
    def report(slot: str) -> None:
        done.append(slot)
        if slot.startswith("2026-01-03"):
            raise RuntimeError

    yield done
    del SCHEDULES["test_report"], dramatiq.get_broker().actors["test_report"]


@pytest.fixture
def tick(app: Flask, reports: list[str]) -> Callable[[datetime], None]:
    """Does what a scheduler does with `report` at a time."""

    def tick(now: datetime) -> None:
        with transaction(app) as session:
            send_due(SCHEDULES["test_report"], session, now, enabled=True)

    return tick


@pytest.fixture
def schedule(app: Flask) -> Run:
    """Runs one of the commands; returns what it prints, read as JSON if it was told to print that."""

    def run(*arguments: str) -> Any:
        result = app.test_cli_runner().invoke(args=["schedule", *arguments])
        return json.loads(result.stdout) if "--json" in arguments else result.output

    return run


def test_each_slot_runs_once_however_many_schedulers_see_it(
    tick: Callable[[datetime], None], work: Callable[[], int], reports: list[str], schedule: Run
) -> None:
    for day in range(3):
        tick(THREE + day * DAY)
        tick(THREE + day * DAY)
    assert work() == 1
    # The first night is the one in which the schedule was seen for the first time.
    assert reports == ["2026-01-02T03:00:00+00:00", "2026-01-03T03:00:00+00:00"]
    slots = schedule("history", "test_report", "--json")
    assert [(slot["slot"][:10], slot["outcome"]) for slot in slots] == [
        ("2026-01-03", "failed"),
        ("2026-01-02", "done"),
        ("2026-01-01", "skipped"),
    ]
    [listed] = [row for row in schedule("list", "--json") if row["name"] == "test_report"]
    assert (listed["cron"], listed["last"], listed["outcome"]) == (
        "0 3 * * *",
        "2026-01-03 03:00:00+00:00",
        "failed",
    )


def test_a_job_can_be_run_for_any_time_and_for_a_period(
    work: Callable[[], int], reports: list[str], schedule: Run
) -> None:
    assert schedule("run", "test_report", "--at", "2026-01-01T15:00") == "jobs sent: 1; left out: 0\n"
    assert work() == 0
    period = ("run", "test_report", "--from", "2026-01-01", "--to", "2026-01-04")
    assert schedule(*period) == "jobs sent: 3; left out: 0\n"
    assert work() == 1
    # What has failed is sent again, and what is done only if that is asked for.
    assert schedule(*period) == "jobs sent: 1; left out: 2\n"
    assert schedule(*period, "--again") == "jobs sent: 3; left out: 0\n"
    assert [slot[:16] for slot in reports] == [
        f"2026-01-0{time}" for time in ("1T15:00", "1T03:00", "2T03:00", "3T03:00")
    ]


def test_a_schedule_that_there_is_not_is_refused_in_one_line(reports: list[str], schedule: Run) -> None:
    assert "'reprot' is none of the schedules " in schedule("run", "reprot").splitlines()[-1]
