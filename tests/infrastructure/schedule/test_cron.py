"""When a schedule is due, by its cron line, its time zone and what it wants of missed slots."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from config import ConfigError
from database import schedule
from database.schedule import CatchUp, Schedule, scheduled


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dramatiq.actor(broker=StubBroker())
def report(slot: str) -> None:
    """A job that nobody runs."""


def make(cron: str, timezone: str = "UTC", catch_up: CatchUp = "latest") -> Schedule:
    return Schedule(report, cron, ZoneInfo(timezone), catch_up, timedelta(0))


def test_the_next_slot_follows_the_clock_of_the_time_zone() -> None:
    expected = {
        ("*/15 * * * *", "UTC", "2026-01-01 00:00:00"): "2026-01-01 00:15",
        ("*/15 * * * *", "UTC", "2026-01-01 00:14:59.999999"): "2026-01-01 00:15",
        ("0 3 * * *", "Europe/Berlin", "2026-01-15 02:00"): "2026-01-16 02:00",
        ("0 3 * * *", "Europe/Berlin", "2026-07-15 00:59"): "2026-07-15 01:00",
        ("0 9 * * 1", "America/New_York", "2026-01-01 00:00"): "2026-01-05 14:00",
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 00:00"): "2026-03-29 01:00",  # 02:30 does not exist.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30"): "2026-10-26 01:30",  # 02:30 exists twice.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:10"): "2026-10-26 01:30",
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00"): "2028-02-29 00:00",
    }
    found = {case: make(*case[:2]).next_slot(at(case[2])) for case in expected}
    assert found == {case: at(slot) for case, slot in expected.items()}


@pytest.mark.parametrize(("month", "change"), [(3, 29), (10, 25)])
@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_a_daily_slot_is_due_once_a_day_across_a_clock_change(month: int, change: int, catch_up: CatchUp) -> None:
    daily = make("30 2 * * *", "Europe/Berlin", catch_up)
    start = datetime(2026, month, change - 1, tzinfo=UTC)
    since, found = start, []
    for minutes in range(0, 3 * 24 * 60, 10):
        now = start + timedelta(minutes=minutes)
        slots = list(daily.due_slots(since, now))
        assert daily.next_slot(now) > now
        since = max([since, *slots])
        found += slots
    assert [slot.astimezone(daily.timezone).day for slot in found] == [change - 1, change, change + 1]


def test_missed_slots_are_due_as_the_schedule_wants() -> None:
    expected: dict[tuple[CatchUp, str], list[str]] = {
        ("none", "12:00:00"): ["12:00"],
        ("none", "12:00:59"): ["12:00"],
        ("none", "12:01:00"): [],
        ("latest", "12:01:00"): ["12:00"],
        ("all", "12:01:00"): ["10:00", "11:00", "12:00"],
        ("none", "11:59:59.5"): [],
        ("latest", "11:59:59.5"): ["11:00"],
        ("all", "11:59:59.5"): ["10:00", "11:00"],
        ("latest", "09:59:59"): [],
        ("all", "09:59:59"): [],
    }
    found = {}
    for catch_up, now in expected:
        due = make("0 * * * *", catch_up=catch_up).due_slots(at("2026-01-01 09:00"), at(f"2026-01-01 {now}"))
        found[catch_up, now] = [f"{slot:%H:%M}" for slot in due]
    assert found == expected


@pytest.mark.parametrize(
    ("what", "when", "timezones"),
    [
        ("a cron line", ["", "* * * *", "61 * * * *", "0 0 31 2 *", "hourly", "0 * * * * *"], ["UTC"]),
        ("an interval", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=1500)], ["UTC"]),
        ("a time zone", ["* * * * *"], ["", "Mars/Olympus", "Europe", "../etc/passwd"]),
    ],
)
def test_what_is_no_schedule_is_refused_with_file_and_line(
    what: str, when: list[str | timedelta], timezones: list[str]
) -> None:
    for line, timezone in itertools.product(when, timezones):
        with pytest.raises(ConfigError, match=rf"^tests/unit/database/test_cron.py:\d+: .* is not {what}"):
            scheduled(line, timezone=timezone)


def test_a_wrong_catch_up_is_refused() -> None:
    with pytest.raises(ConfigError, match="catch_up: found 'last', expected one of none, latest, all"):
        scheduled("* * * * *", catch_up="last")  # type: ignore[arg-type]


def test_an_interval_has_its_slots_at_the_same_times_everywhere() -> None:
    often = Schedule(report, timedelta(minutes=15), ZoneInfo("UTC"), "all", timedelta(0))
    assert often.next_slot(at("2026-01-01 10:15")) == at("2026-01-01 10:30")
    assert often.latest_slot(at("2026-01-01 10:14:59")) == at("2026-01-01 10:00")
    due = often.due_slots(at("2026-01-01 10:00"), at("2026-01-01 10:45"))
    assert [f"{slot:%H:%M}" for slot in due] == ["10:15", "10:30", "10:45"]


def test_a_schedule_is_known_by_its_actor_and_the_actor_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SCHEDULES", {})
    assert scheduled("0 3 * * *", timezone="Europe/Berlin", catch_up="all")(report) is report
    (known,) = schedule.SCHEDULES.values()
    assert known == make("0 3 * * *", "Europe/Berlin", "all")
    assert known.name == "report"
