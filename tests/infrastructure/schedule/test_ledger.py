"""Each slot becomes a job once, in one transaction with its row in the ledger."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from database import schedule, sessions
from database.schedule import forget_old, send_due, send_slot
from tests.infrastructure.schedule.conftest import Ledger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FOUR_YEARS = timedelta(days=4 * 365)


def test_a_schedule_begins_with_the_slot_after_its_first_sight(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    assert [ledger.send(hourly, NOON + hours * HOUR) for hours in (0.5, 0.9, 1)] == [False, False, True]
    assert ledger.sent() == ["report 2026-01-01T13:00"]
    assert ledger.outcomes() == ["skipped", "sent"]


def test_of_the_slots_that_were_missed_the_latest_is_caught_up(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    assert [ledger.send(hourly, NOON + hours * HOUR) for hours in (0, 3.5, 3.9)] == [False, True, False]
    assert ledger.sent() == ["report 2026-01-01T15:00"]


def test_without_catching_up_only_a_slot_on_time_is_sent(ledger: Ledger) -> None:
    hourly = ledger.schedule(catch_up=False)
    moments = [NOON, NOON + HOUR + timedelta(seconds=59), NOON + 2 * HOUR + timedelta(minutes=1), NOON + 3 * HOUR]
    assert [ledger.send(hourly, now) for now in moments] == [False, True, False, True]
    assert ledger.outcomes() == ["skipped", "sent", "skipped", "sent"]


def test_row_and_message_are_stored_together_or_not_at_all(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    ledger.send(hourly, NOON)
    with suppress(KeyError), ledger.transaction() as session:
        assert send_due(hourly, session, NOON + HOUR, enabled=True)
        raise KeyError
    assert (ledger.sent(), ledger.outcomes()) == ([], ["skipped"])
    assert ledger.send(hourly, NOON + HOUR)


def test_schedulers_that_see_a_slot_at_the_same_moment_send_it_once(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    ledger.send(hourly, NOON)
    together = threading.Barrier(4)

    def send(_: int) -> bool:
        together.wait()
        return ledger.send(hourly, NOON + HOUR)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(send, range(4))) == 1
    assert len(ledger.sent()) == 1


def test_a_job_that_is_sent_by_hand_is_no_slot_that_a_scheduler_has_seen(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    with ledger.transaction() as session:
        send_slot(hourly, session, NOON - HOUR)
    assert not ledger.send(hourly, NOON + HOUR / 2)
    with ledger.transaction() as session:
        send_slot(hourly, session, NOON + HOUR * 1.1)
    # Nor does it keep a missed slot from being caught up.
    assert ledger.send(hourly, NOON + HOUR * 1.5)


def test_a_scheduler_that_finds_nothing_to_send_takes_no_lock(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    ledger.send(hourly, NOON)
    with sessions(ledger.engine, read_only=True)() as session:
        assert send_due(hourly, session, NOON, enabled=True) is None


def test_schedules_do_not_affect_each_other(ledger: Ledger) -> None:
    one, two = ledger.schedule(name="one"), ledger.schedule(name="two")
    ledger.send(one, NOON)
    assert not ledger.send(two, NOON + HOUR)
    assert ledger.send(one, NOON + HOUR)
    assert ledger.sent() == ["one 2026-01-01T13:00"]


def test_a_disabled_schedule_skips_its_slots_and_they_are_not_caught_up(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    ledger.send(hourly, NOON)
    assert not ledger.send(hourly, NOON + HOUR, enabled=False)
    assert not ledger.send(hourly, NOON + 1.5 * HOUR)
    assert ledger.outcomes() == ["skipped", "skipped"]
    assert ledger.send(hourly, NOON + 2 * HOUR)


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [("0 9 * * *", "UTC"), ("0 23 * * *", "UTC"), ("0 9 1 * *", "UTC"), ("0 3 * * *", "Asia/Tokyo")],
)
def test_a_changed_line_begins_with_its_next_slot(ledger: Ledger, cron: str, timezone: str) -> None:
    old = ledger.schedule("0 3 * * *")
    for now in (NOON - 24 * HOUR, NOON):
        ledger.send(old, now)
    new = ledger.schedule(cron, timezone)
    assert not ledger.send(new, NOON + HOUR)
    assert ledger.send(new, new.next_slot(NOON + HOUR))
    # From then on, it catches up like any other.
    assert ledger.send(new, new.next_slot(NOON + timedelta(days=40)) + HOUR / 2)


def test_two_versions_of_a_line_that_take_turns_lose_no_slot_on_time(ledger: Ledger) -> None:
    old, new = ledger.schedule("0 * * * *"), ledger.schedule("*/30 * * * *")
    ledger.send(old, NOON)
    for seconds in range(0, 3700, 20):
        ledger.send((old, new)[seconds // 20 % 2], NOON + timedelta(seconds=seconds))
    assert ledger.sent() == ["report 2026-01-01T12:30", "report 2026-01-01T13:00"]


def test_a_clock_that_was_years_ahead_stops_nothing(ledger: Ledger) -> None:
    hourly, new = ledger.schedule(), ledger.schedule(name="new")
    ledger.send(hourly, NOON)
    for seconds in (0, 5, 10, 15):
        ledger.send(hourly, NOON + FOUR_YEARS + timedelta(seconds=seconds))
        ledger.send(new, NOON + FOUR_YEARS + timedelta(seconds=seconds))
    # Right again: the one goes on, and the other, which was seen only by the wrong clock, begins.
    assert [ledger.send(hourly, NOON + hours * HOUR) for hours in (0.1, 1, 2)] == [False, True, True]
    assert [ledger.send(new, NOON + hours * HOUR) for hours in (0.1, 1, 2)] == [False, True, True]
    assert max(row.slot for row in ledger.rows()) > NOON + timedelta(days=365)


def test_the_ledger_tells_how_the_jobs_have_ended(ledger: Ledger) -> None:
    seen = []

    def job(slot: str) -> None:
        seen.append(ledger.outcomes())
        if len(seen) != 2:
            raise ValueError

    due = ledger.schedule(job=job, max_retries=1, min_backoff=1)
    for hours in (0, 1):
        with ledger.transaction() as session:
            send_slot(due, session, NOON + hours * HOUR)
        ledger.work()
    assert seen == [["sent"], ["retrying"], ["done", "sent"], ["done", "retrying"]]
    assert ledger.outcomes() == ["done", "failed"]


def test_a_job_that_is_too_old_to_run_has_failed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    due = ledger.schedule(max_age=1000)
    with monkeypatch.context() as patched:
        patched.setattr("dramatiq.message.time.time", lambda: 0)
        with ledger.transaction() as session:
            send_slot(due, session, NOON)
    ledger.work()
    assert ledger.outcomes() == ["failed"]


def test_a_slot_is_sent_again_only_if_that_is_asked_for(ledger: Ledger) -> None:
    hourly = ledger.schedule()
    sent = []
    for again in ((), (), ("failed",), ("sent",)):
        with ledger.transaction() as session:
            sent.append(send_slot(hourly, session, NOON, again=again))
    assert [bool(message_id) for message_id in sent] == [True, False, False, True]
    assert len(ledger.sent()) == 2
    assert [row.message_id for row in ledger.rows()] == [sent[3]]


def test_the_outcome_is_that_of_the_job_that_was_sent_last(ledger: Ledger) -> None:
    def job(slot: str) -> None:
        if not jobs:
            # The first job has not ended when the slot is sent again.
            with ledger.transaction() as session:
                jobs.append(send_slot(due, session, NOON, again=("sent",)))
            raise ValueError
        outcomes.append(ledger.outcomes())

    jobs: list[str | None] = []
    outcomes: list[list[str]] = []
    due = ledger.schedule(job=job, max_retries=0)
    with ledger.transaction() as session:
        send_slot(due, session, NOON)
    ledger.work()
    assert (outcomes, ledger.outcomes()) == ([["sent"]], ["done"])


def test_old_slots_are_forgotten_except_for_the_last_one_of_each_schedule(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    hourly, yearly, gone = (ledger.schedule(name=name) for name in ("hourly", "yearly", "gone"))
    monkeypatch.setattr(schedule, "SCHEDULES", {"hourly": hourly, "yearly": yearly})
    with ledger.transaction() as session:
        for one, hours in ((hourly, 0), (hourly, 1), (yearly, 0), (gone, 0)):
            send_slot(one, session, NOON + hours * HOUR)
        forget_old(session, NOON + 24 * HOUR)  # They were sent just now.
    assert len(ledger.rows()) == 4
    with ledger.transaction() as session:
        forget_old(session, datetime.now(UTC) + HOUR)
    assert sorted((row.schedule, row.slot) for row in ledger.rows()) == [("hourly", NOON + HOUR), ("yearly", NOON)]
    assert not ledger.send(yearly, NOON)
