"""The commands of `main.py schedule`, beyond what the project's own test shows."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from click.testing import Result
from flask import Flask

from app.services import transaction
from database import utc_now
from database.schedule import SCHEDULES, scheduled, send_slot

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(app: Flask) -> Iterator[Invoke]:
    """Runs a command, beside a job that is due at three in Berlin."""

    @scheduled("0 3 * * *", timezone="Europe/Berlin")
    @dramatiq.actor
    def report(slot: str) -> None:
        """Nothing."""

    yield lambda *arguments: app.test_cli_runner().invoke(args=["schedule", *arguments])
    del SCHEDULES["report"], dramatiq.get_broker().actors["report"]


def slots(invoke: Invoke) -> list[str]:
    return [row["slot"][:16] for row in json.loads(invoke("history", "report", "--json").stdout)]


def test_times_without_a_zone_are_those_of_the_schedule(invoke: Invoke) -> None:
    for time in ("2026-01-01", "2026-07-01T12:00", "2026-07-01T12:00+00:00"):
        assert invoke("run", "report", "--at", time).exit_code == 0
    assert slots(invoke) == ["2026-07-01 12:00", "2026-07-01 10:00", "2025-12-31 23:00"]


def test_without_a_time_it_is_now(invoke: Invoke) -> None:
    assert invoke("run", "report").output == "jobs sent: 1; left out: 0\n"
    [slot] = slots(invoke)
    assert utc_now() - datetime.fromisoformat(slot).replace(tzinfo=UTC) < timedelta(minutes=2)


def test_a_long_period_that_is_broken_off_keeps_what_it_has_sent(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor: Any = SCHEDULES["report"].actor
    messages = iter([actor.message(str(number)) for number in range(2)])
    monkeypatch.setattr(dramatiq.Actor, "message_with_options", lambda *_, **__: next(messages))
    assert invoke("run", "report", "--from", "2026-01-01", "--to", "2026-02-01").exit_code
    assert slots(invoke) == ["2026-01-02 02:00", "2026-01-01 02:00"]


def test_a_slot_of_a_wrong_clock_is_in_the_history_and_not_the_last(app: Flask, invoke: Invoke) -> None:
    with transaction(app) as session:
        for days in (-1, 1000):
            send_slot(SCHEDULES["report"], session, utc_now().replace(hour=2, microsecond=0) + timedelta(days=days))
    [listed] = [row for row in json.loads(invoke("list", "--json").stdout) if row["name"] == "report"]
    assert len(slots(invoke)) == 2
    assert listed["last"] < str(utc_now()) < listed["next"]


def test_a_disabled_schedule_has_no_next_slot(invoke: Invoke) -> None:
    rows = {row["name"]: row["next"] for row in json.loads(invoke("list", "--json").stdout)}
    assert rows["back_up"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--at", "3pm"], "'3pm' is not a time, expected one like 2026-01-31 or 2026-01-31T03:00+01:00"),
        (["--at", "2026-01-01", "--from", "2026-01-01"], "expected --at, or --from with or without --to"),
        (["--to", "2026-01-01"], "expected --at, or --from with or without --to"),
    ],
)
def test_a_wrong_time_is_one_line(invoke: Invoke, arguments: list[str], line: str) -> None:
    result = invoke("run", "report", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].endswith(line)
