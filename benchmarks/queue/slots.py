"""Whether each slot of a schedule is sent exactly once by several schedulers that are killed all the time.

Real: processes that run the scheduler's own loop with its transactions, ledger and messages, SIGKILL at random moments,
and the database. Not real: the clock. The database's time passes 80 times as fast, so that 1,000 slots a second apart
take 13 s, and stands still at the last one until all are caught up.
`python -m benchmarks.queue.slots` is one scheduler.
"""

import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

import dramatiq
from database import schedule, sessions
from database.broker import DatabaseBroker
from database.engine import connect
from database.messages import MessageTable, QueueMessage
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.queue.places import DATABASES, Place, Places, kill, show, wait_until

SLOTS = 1000
SPEED = 80
SCHEDULERS = (2, 5)
# Seconds between two kills, at most.
PAUSE = 0.6

real_now = schedule.database_now


class FastClock(threading.Event):
    """What the loop waits on, at the clock's speed."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait a fraction of the time."""
        return super().wait((timeout or 0) / SPEED)


def tick(slot: str) -> None:
    """The job, which never runs."""


def schedule_of(broker: dramatiq.Broker) -> schedule.Schedule:
    """A slot a second, all of which have to run."""
    actor = dramatiq.actor(tick, broker=broker)
    schedule.scheduled(timedelta(seconds=1), catch_up="all")(actor)
    return schedule.SCHEDULES["tick"]


def run_scheduler() -> None:
    """The loop, until it is killed."""
    engine = connect(os.environ["DATABASE_URL"])
    origin = datetime.fromtimestamp(float(os.environ["ORIGIN"]), UTC)
    current: ContextVar[Session | None] = ContextVar("current", default=None)
    new_session = sessions(engine)

    def fast_now(session: Session) -> datetime:
        passed = (real_now(session) - origin).total_seconds() * SPEED
        return origin + timedelta(seconds=min(passed, SLOTS))

    @contextmanager
    def transaction() -> Iterator[Session]:
        with new_session.begin() as session:
            token = current.set(session)
            yield session
        current.reset(token)

    schedule.database_now = fast_now
    schedule_of(DatabaseBroker(MessageTable(engine, current.get)))
    schedule.run(transaction, FastClock())


def run_schedulers(places: Places, place: Place, count: int) -> list[str]:
    """Let that many of them work and kill one after the other; a row of the table."""
    engine = connect(place.database)
    # A moment from now, when the first of them are up.
    origin = datetime.fromtimestamp(int(time.time()) + 3, UTC)
    definition = schedule_of(DatabaseBroker(MessageTable(engine))).definition
    with sessions(engine).begin() as session:
        session.add(schedule.KnownSchedule(name="tick", definition=definition, dealt_with=origin))
    environ = {"ORIGIN": str(origin.timestamp())}

    def start() -> subprocess.Popen[str]:
        return places.start(place, "-m", "benchmarks.queue.slots", environ=environ)

    schedulers = [start() for _ in range(count)]
    kills = 0
    last = origin + timedelta(seconds=SLOTS)

    def all_sent() -> bool:
        with sessions(engine, read_only=True)() as session:
            return bool(session.scalars(select(schedule.KnownSchedule.dealt_with)).one() == last)

    while time.time() < origin.timestamp() + SLOTS / SPEED:
        time.sleep(random.uniform(0, PAUSE))
        number = random.randrange(count)
        kill(schedulers[number])
        schedulers[number] = start()
        kills += 1
    wait_until(all_sent, "all slots", 30)
    places.kill_all()

    with sessions(engine, read_only=True)() as session:
        ledger = Counter(session.scalars(select(schedule.ScheduleSlot.slot)))
        payloads = session.scalars(select(QueueMessage.payload)).all()
    engine.dispose()
    messages = Counter(datetime.fromisoformat(dramatiq.Message.decode(payload).args[0]) for payload in payloads)
    wanted = {origin + timedelta(seconds=number) for number in range(1, SLOTS + 1)}
    missed = len(wanted - messages.keys()) + len(wanted - ledger.keys())
    twice = sum(number > 1 for number in messages.values())
    wrong = len((messages.keys() | ledger.keys()) - wanted)
    return [str(kills), str(len(ledger)), str(len(payloads)), str(missed), str(twice), str(wrong)]


def measure(places: Places) -> None:
    """Print the table."""
    rows = []
    for database in DATABASES:
        for count in SCHEDULERS:
            if place := places.fresh(database):
                row = run_schedulers(places, place, count)
                rows.append([f"{database}, {count} schedulers", *row])
    header = ["", "kills", "in the ledger", "messages", "missed", "sent twice", "not asked for"]
    show(f"slots: {SLOTS:,} of a second each", header, rows, f"{SLOTS} in the ledger, {SLOTS} messages, and 0")


if __name__ == "__main__":
    run_scheduler()
