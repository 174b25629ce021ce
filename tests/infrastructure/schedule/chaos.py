"""Schedulers that are killed all the time; for a benchmark too."""

import multiprocessing
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import func, literal, select

from database import connect, schedule, sessions
from database.schedule import ScheduleSlot, run
from tests.infrastructure.schedule.conftest import Ledger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
# A process that has imported everything and waits to be forked: a scheduler starts in a few hundredths of a second.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "psycopg"])
PATIENCE = 60


class Eager(threading.Event):
    """Hardly waits."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.05)


def run_scheduler(url: str, jobs: int, clock: Any) -> None:
    """What a scheduler's process does until it is killed. Real is all but the clock."""
    ledger = Ledger(connect(url))
    known = {f"job_{number}": ledger.schedule(name=f"job_{number}") for number in range(jobs)}
    with patch.multiple(schedule, SCHEDULES=known, database_time=lambda: literal(clock.value)):
        run(ledger.transaction, Eager(), ())


def chaos(url: str, schedulers: int, *, jobs: int, hours: int) -> dict[str, int]:
    """Run hourly jobs, and kill two schedulers every hour at random moments while they send; count what came of it.

    The clock goes on by an hour as soon as all jobs of the last one are sent.
    """
    dice = random.Random(schedulers)
    clock = CONTEXT.Value("d", NOON.timestamp(), lock=False)
    engine = connect(url)
    running: list[Any] = []
    kills = 0

    def start(count: int) -> None:
        for _ in range(count):
            running.append(CONTEXT.Process(target=run_scheduler, args=(url, jobs, clock), daemon=True))
            running[-1].start()

    def wait_for_rows(number: int) -> None:
        # A slot that is missed never comes.
        deadline, found = time.monotonic() + PATIENCE, 0
        while found < number and time.monotonic() < deadline:
            time.sleep(0.005)
            with sessions(engine, read_only=True)() as session:
                found = session.scalars(select(func.count()).select_from(ScheduleSlot)).one()

    start(schedulers)
    try:
        wait_for_rows(jobs)  # They are seen for the first time.
        for hour in range(1, hours + 1):
            clock.value = (NOON + timedelta(hours=hour)).timestamp()
            for number in sorted(dice.sample(range(1, jobs), 2)):
                wait_for_rows(hour * jobs + number)
                running.pop(dice.randrange(schedulers)).kill()
                kills += 1
                start(1)
            wait_for_rows((hour + 1) * jobs)
    finally:
        for process in running:
            process.kill()
            process.join(PATIENCE)
    ledger = Ledger(engine)
    slots, sent = ledger.outcomes().count("sent"), Counter(ledger.sent())
    engine.dispose()
    twice = sum(count > 1 for count in sent.values())
    return {"kills": kills, "slots": slots, "missed": jobs * hours - len(sent), "sent twice": twice}
