"""The commands for timed jobs."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from click.testing import Result
from flask import Flask

from app import schedule_commands
from database import utc_now
from database.schedule import Schedule
from tests.conftest import without_seconds

Invoke = Callable[..., Result]


@pytest.fixture
def seen(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The slots for which the job `report`, the only one there is, has run; in January it fails."""
    slots: list[str] = []

    def report(slot: str) -> None:
        slots.append(slot)
        if slot.startswith("2026-01-01"):
            raise ValueError

    actor = dramatiq.actor(max_retries=0)(report)
    daily = Schedule(actor, "0 3 * * *", ZoneInfo("Europe/Berlin"), "all", timedelta(0))
    monkeypatch.setattr(schedule_commands, "SCHEDULES", {"report": daily})
    yield slots
    del dramatiq.get_broker().actors["report"]


@pytest.fixture
def invoke(app: Flask, seen: list[str]) -> Invoke:
    """Runs a command of the schedule."""
    return lambda *arguments: app.test_cli_runner().invoke(args=["schedule", *arguments])


@pytest.fixture
def worker(seen: list[str]) -> Iterator[None]:
    """A worker that runs all the time."""
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_timeout=10, worker_threads=1)
    worker.start()
    yield
    worker.stop()


def objects(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_list_tells_the_next_run_and_how_the_last_one_went(invoke: Invoke, seen: list[str], worker: None) -> None:
    (row,) = objects(invoke("list", "--json"))
    assert (row["name"], row["when"], row["last"], row["outcome"]) == ("report", "0 3 * * * Europe/Berlin", None, None)
    assert utc_now().isoformat() < row["next"] < (utc_now() + timedelta(hours=25)).isoformat()
    invoke("run", "report", "--at", "2026-02-01T03:00")
    (row,) = objects(invoke("list", "--json"))
    assert (row["last"], row["outcome"]) == ("2026-02-01T02:00:00+00:00", "done")
    cells = invoke("list").stdout.splitlines()[1].split()
    assert " ".join(cells[:9]) == "report 0 3 * * * Europe/Berlin all yes"


def test_a_disabled_schedule_has_no_next_run(
    make_app: Callable[..., Flask], seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.SCHEDULES", {"report"})
    app = make_app(APP_SCHEDULE__DISABLED='["report"]')
    (row,) = objects(app.test_cli_runner().invoke(args=["schedule", "list", "--json"]))
    assert (row["enabled"], row["next"]) == (False, None)


def test_a_job_can_be_run_for_any_time(invoke: Invoke, seen: list[str], worker: None) -> None:
    assert invoke("run", "report", "--at", "2026-02-01T12:34").exit_code == 0
    assert invoke("run", "report", "--at", "2026-02-01T12:34:00+00:00").exit_code == 0
    assert seen == ["2026-02-01T11:34:00+00:00", "2026-02-01T12:34:00+00:00"]


def test_now_is_a_time_as_well(invoke: Invoke, seen: list[str], worker: None) -> None:
    before = utc_now().replace(microsecond=0).isoformat()
    assert invoke("run", "report").exit_code == 0
    assert before <= seen[0] <= utc_now().isoformat()


def test_a_period_is_filled_without_the_slots_that_are_done(invoke: Invoke, seen: list[str], worker: None) -> None:
    invoke("run", "report", "--at", "2026-03-29T03:00")
    result = invoke("run", "report", "--from", "2026-03-28", "--to", "2026-03-30T03:00")
    assert result.exit_code == 0
    assert "2 sent, 1 are done or wait already" in result.stderr
    assert sorted(seen) == [f"2026-03-{day}:00:00+00:00" for day in ("28T02", "29T01", "30T01")]
    invoke("run", "report", "--from", "2026-03-28", "--to", "2026-03-30T03:00", "--again")
    assert len(seen) == 6


def test_a_period_without_an_end_ends_now(invoke: Invoke) -> None:
    start = (utc_now() - timedelta(days=3)).isoformat()
    assert "report: 3 sent" in invoke("run", "report", "--from", start, "--no-wait").stderr


def test_a_job_that_fails_is_told(invoke: Invoke, worker: None) -> None:
    result = invoke("run", "report", "--from", "2026-01-01", "--to", "2026-01-03")
    assert result.exit_code == 1
    assert "Error: 1 of 2 failed; see: python main.py queue failed" in result.stderr


def test_who_stops_waiting_stops_nothing_else(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, work: Callable[[], int], seen: list[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    result = invoke("run", "report", "--at", "2026-02-01")
    assert result.exit_code == 1
    assert "the jobs stay in the queue" in result.stderr
    monkeypatch.undo()
    work()
    assert len(seen) == 1


def test_the_history_is_of_one_schedule_or_of_all_latest_first(invoke: Invoke, work: Callable[[], int]) -> None:
    assert invoke("history").stdout.splitlines() == ["SCHEDULE  SLOT  OUTCOME  SENT  ENDED"]
    invoke("run", "report", "--from", "2026-01-01", "--to", "2026-01-03", "--no-wait")
    work()
    rows = objects(invoke("history", "--json"))
    assert [(row["slot"], row["outcome"]) for row in rows] == [
        ("2026-01-02T02:00:00+00:00", "done"),
        ("2026-01-01T02:00:00+00:00", "failed"),
    ]
    assert rows == objects(invoke("history", "report", "--json"))
    assert len(objects(invoke("history", "report", "--limit", "1", "--json"))) == 1
    latest = without_seconds(invoke("history").stdout).splitlines()[1]
    assert re.fullmatch(r"report +2026-01-02 02:00:00 +done +now +now *", latest)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], "'nope' is none of the schedules report"),
        (["report", "--at", "soon"], "'soon' is not a time, expected one like 2026-01-31"),
        (["report", "--at", "2026-01-01", "--from", "2026-01-01"], "use one or the other"),
        (["report", "--to", "2026-01-01"], "--to needs --from"),
        (["report", "--from", "2026-01-02", "--to", "2026-01-01"], "--to is before --from"),
    ],
)
def test_a_mistake_is_one_line(invoke: Invoke, arguments: list[str], line: str) -> None:
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert line in result.stderr.splitlines()[-1]
