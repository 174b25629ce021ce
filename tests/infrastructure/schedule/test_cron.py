"""When a schedule is due, in its time zone and across changes of the clock."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from config import ConfigError
from database import schedule
from database.schedule import Schedule, scheduled


@pytest.fixture(autouse=True)
def own_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SCHEDULES", {})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def actor() -> dramatiq.Actor[..., Any]:
    return dramatiq.actor(actor_name="report", broker=StubBroker())(lambda slot: None)


def make(cron: str, timezone: str = "UTC") -> Schedule:
    return Schedule("report", actor(), cron, ZoneInfo(timezone), catch_up=True)


def test_the_next_slot_follows_the_clock_of_the_time_zone() -> None:
    expected = {
        ("*/15 * * * *", "UTC", "2026-01-01 00:00:00"): "2026-01-01 00:15",
        ("*/15 * * * *", "UTC", "2026-01-01 00:14:59.999999"): "2026-01-01 00:15",
        ("0 3 * * *", "Europe/Berlin", "2026-01-15 02:00"): "2026-01-16 02:00",
        ("0 3 * * *", "Europe/Berlin", "2026-07-15 00:59"): "2026-07-15 01:00",
        ("0 9 * * 1", "America/New_York", "2026-01-01 00:00"): "2026-01-05 14:00",
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 00:00"): "2026-03-29 01:00",  # 02:30 does not exist.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:29"): "2026-10-25 00:30",  # 02:30 exists twice.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:30"): "2026-10-26 01:30",
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:10"): "2026-10-26 01:30",
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00"): "2028-02-29 00:00",
    }
    found = {case: make(*case[:2]).next_slot(at(case[2])) for case in expected}
    assert found == {case: at(slot) for case, slot in expected.items()}


@pytest.mark.parametrize(
    ("timezone", "change"),
    [
        ("Europe/Berlin", "2026-03-29 01:00"),
        ("Europe/Berlin", "2026-10-25 01:00"),
        ("America/New_York", "2026-03-08 07:00"),
        ("America/New_York", "2026-11-01 06:00"),
        ("Antarctica/Troll", "2026-10-25 01:00"),  # By two hours.
    ],
)
@pytest.mark.parametrize("cron", ["0 2 * * *", "30 2 * * *", "0 3 * * *", "0,30 0-4 * * *", "*/9 * * * *"])
def test_the_latest_slot_is_the_one_that_was_next(timezone: str, change: str, cron: str) -> None:
    due = make(cron, timezone)
    for minutes in range(-4 * 60, 4 * 60, 15):
        now = at(change) + timedelta(minutes=minutes)
        latest, following = due.latest_slot(now), due.next_slot(now)
        assert latest <= now < following
        assert (due.next_slot(latest), due.latest_slot(following)) == (following, following)


@pytest.mark.parametrize("change", ["2026-03-29", "2026-10-25"])
def test_a_daily_slot_is_due_once_a_day_and_a_half_hourly_one_every_half_hour(change: str) -> None:
    daily, often = make("30 2 * * *", "Europe/Berlin"), make("*/30 * * * *", "Europe/Berlin")
    first, last = at(change) - timedelta(days=1), at(change) + timedelta(days=2) - timedelta.resolution
    days = [slot.astimezone(daily.timezone).day for slot in daily.slots(first, last)]
    assert days == [at(change).day + offset for offset in (-1, 0, 1)]
    assert len(list(often.slots(first, last))) == 3 * 48


def test_a_period_includes_both_its_ends() -> None:
    slots = make("0 * * * *").slots(at("2026-01-01 10:00"), at("2026-01-01 12:00"))
    assert [slot.hour for slot in slots] == [10, 11, 12]


@pytest.mark.parametrize("line", ["", "* * * *", "61 * * * *", "0 0 31 2 *", "0 0 */29 2 MON#5", "hourly"])
def test_a_wrong_line_is_refused_with_the_name_of_its_job(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^tests\.\S+test_cron\.report: found .*, expected five fields.*$"):
        scheduled(line)(actor())
    assert not schedule.SCHEDULES


@pytest.mark.parametrize("timezone", ["", "Mars/Olympus", "Europe", "../etc/passwd", "/etc/passwd"])
def test_a_wrong_time_zone_is_refused_with_the_name_of_its_job(timezone: str) -> None:
    with pytest.raises(ConfigError, match=r"^tests\.\S+test_cron\.report: found .*, and a zone like Europe/Berlin.*$"):
        scheduled("0 3 * * *", timezone=timezone)(actor())


def test_a_schedule_is_known_by_its_actor_which_stays_as_it_is() -> None:
    report = actor()
    assert scheduled("0 3 * * *", timezone="Europe/Berlin", catch_up=False)(report) is report
    expected = Schedule("report", report, "0 3 * * *", ZoneInfo("Europe/Berlin"), catch_up=False)
    assert list(schedule.SCHEDULES.items()) == [("report", expected)]
