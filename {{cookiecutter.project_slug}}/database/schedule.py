"""Timed jobs: each slot of a schedule becomes a job exactly once, however many schedulers run.

A slot is a row under a unique key, written in one transaction with the message of its job. Whoever writes the row
first sends the job; everybody else finds it taken.
"""

import itertools
import logging
import random
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dramatiq
from cronsim import CronSim, CronSimError
from sqlalchemy import Engine, String, delete, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Mapped, Session, mapped_column

from config import ROOT, ConfigError
from database.base import Base, database_time, insert_new, utc_now
from database.engine import sessions

CatchUp = Literal["none", "latest", "all"]
P = ParamSpec("P")
R = TypeVar("R")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A slot this young is on time, not missed.
ON_TIME = timedelta(minutes=1)
LONGEST_PAUSE = 30.0
# So many slots are sent in one transaction, however many were missed.
SLOTS_AT_ONCE = 500

logger = logging.getLogger(__name__)


class KnownSchedule(Base):
    """A schedule that a scheduler has seen, and up to when its slots are dealt with."""

    __tablename__ = "schedule"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    definition: Mapped[str] = mapped_column(String(200))
    dealt_with: Mapped[datetime]


class ScheduleSlot(Base):
    """A slot that was dealt with. `outcome` is sent, done, failed (so far), or skipped as the schedule is disabled."""

    __tablename__ = "schedule_slot"

    schedule: Mapped[str] = mapped_column(String(100), primary_key=True)
    slot: Mapped[datetime] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(String(10))
    sent: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    finished: Mapped[datetime | None]
    message_id: Mapped[str | None] = mapped_column(String(36))


@dataclass(frozen=True)
class Schedule:
    """When an actor runs by itself: by a cron line, or at every multiple of an interval since 1970 in UTC."""

    actor: dramatiq.Actor[..., Any]
    when: str | timedelta
    timezone: ZoneInfo
    catch_up: CatchUp
    jitter: timedelta

    @property
    def name(self) -> str:
        """The actor's name, which is unique."""
        return self.actor.actor_name

    @property
    def definition(self) -> str:
        """When it runs, for people, and to see that it has changed."""
        return f"{self.when} {self.timezone.key}" if isinstance(self.when, str) else f"every {self.when}"

    def next_slot(self, after: datetime) -> datetime:
        """The first slot later than `after`, in UTC."""
        if isinstance(self.when, timedelta):
            return EPOCH + ((after - EPOCH) // self.when + 1) * self.when
        # In the hour that a clock change repeats, CronSim starts with a slot that is over.
        return next(slot for slot in self._cron_slots(after) if slot > after)

    def latest_slot(self, now: datetime) -> datetime:
        """The last slot that is not later than `now`, in UTC."""
        if isinstance(self.when, timedelta):
            return EPOCH + (now - EPOCH) // self.when * self.when
        # Backwards from behind the hour of a clock change, because CronSim would leave out a slot in it.
        return next(slot for slot in self._cron_slots(now + timedelta(hours=2), reverse=True) if slot <= now)

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """All slots later than `after` and not later than `until`, oldest first."""
        while (after := self.next_slot(after)) <= until:
            yield after

    def due_slots(self, after: datetime, now: datetime) -> Iterator[datetime]:
        """The slots later than `after` and not later than `now` that have to run, oldest first."""
        if self.catch_up == "all":
            yield from self.slots(after, now)
        elif (latest := self.latest_slot(now)) > after and (self.catch_up == "latest" or now - latest < ON_TIME):
            yield latest

    def message(self, slot: datetime) -> dramatiq.Message[Any]:
        """The job of a slot, which gets the slot's time as its argument."""
        options: dict[str, Any] = {"schedule": self.name, "slot": slot.isoformat()}
        return self.actor.message_with_options(args=(slot.isoformat(),), **options)

    def _cron_slots(self, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        for slot in CronSim(str(self.when), start.astimezone(self.timezone), reverse=reverse):
            yield slot.astimezone(UTC)


SCHEDULES: dict[str, Schedule] = {}


def scheduled(
    when: str | timedelta, *, timezone: str = "UTC", catch_up: CatchUp = "latest", jitter: timedelta = timedelta(0)
) -> Callable[[dramatiq.Actor[P, R]], dramatiq.Actor[P, R]]:
    """Run an actor at every slot of a schedule. It gets the slot's time as ISO 8601 text in UTC.

    Args:
        when: a cron line with five fields as in cron(5), or an interval of whole seconds.
        timezone: an IANA name; the cron line is read in its local time. A time that a clock change leaves out fires
            as soon as the clock has gone on, one that it repeats fires once.
        catch_up: which slots to run that were missed while no scheduler ran.
        jitter: each job starts at a random moment within this time after its slot.

    Raises:
        ConfigError: the cron line, the interval or the time zone is not one; it names the file and the line.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{_caller()}: {timezone!r} is not a time zone, expected one like Europe/Berlin") from None
    if problem := _problem(when):
        raise ConfigError(f"{_caller()}: {problem}")
    if catch_up not in get_args(CatchUp):
        raise ConfigError(f"{_caller()}: catch_up: found {catch_up!r}, expected one of {', '.join(get_args(CatchUp))}")

    def declare(actor: dramatiq.Actor[P, R]) -> dramatiq.Actor[P, R]:
        SCHEDULES[actor.actor_name] = Schedule(actor, when, zone, catch_up, jitter)
        return actor

    return declare


def _problem(when: str | timedelta) -> str | None:
    if isinstance(when, timedelta):
        whole = when > timedelta(0) and not when % timedelta(seconds=1)
        return None if whole else f"{when} is not an interval, expected whole seconds"
    try:
        if len(when.split()) != 5:
            raise CronSimError("it has to have five fields")
        CronSim(when, utc_now())
    except CronSimError as error:
        return f"{when!r} is not a cron line: {error}"
    return None


def _caller() -> str:
    frame = sys._getframe(2)
    file = Path(frame.f_code.co_filename)
    return f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}:{frame.f_lineno}"


def database_now(session: Session) -> datetime:
    """The database's time, on which all schedulers agree."""
    return datetime.fromtimestamp(session.scalar(select(database_time())) or 0, UTC)


def send_due(schedule: Schedule, session: Session, now: datetime, *, enabled: bool = True) -> int:
    """Deal with the slots of a schedule that are due, at most so many at once; returns how many.

    A schedule that is seen for the first time, or that has been changed, begins now. A disabled one gets rows and no
    jobs, so that nothing is caught up when it is enabled again.

    The caller's session must be the one that the broker stores messages in.
    """
    known = session.get(KnownSchedule, schedule.name, with_for_update=True)
    if known is None:
        row = KnownSchedule(name=schedule.name, definition=schedule.definition, dealt_with=now)
        insert_new(session, row)
        return 0
    if known.definition != schedule.definition:
        # Not later, because while a new version is rolled out two of them may take turns.
        known.dealt_with = max(known.dealt_with, now - ON_TIME)
        known.definition = schedule.definition
    slots = list(itertools.islice(schedule.due_slots(known.dealt_with, now), SLOTS_AT_ONCE))
    for slot in slots:
        send_slot(schedule, session, slot, enabled=enabled)
        known.dealt_with = slot
    return len(slots)


def send_slot(
    schedule: Schedule, session: Session, slot: datetime, *, enabled: bool = True, again: Collection[str] = ()
) -> bool:
    """Send the job of one slot, unless it is in the ledger already with an outcome that is none of `again`."""
    message = schedule.message(slot)
    outcome = "sent" if enabled else "skipped"
    row = ScheduleSlot(schedule=schedule.name, slot=slot, outcome=outcome, message_id=message.message_id)
    if not insert_new(session, row):
        known = session.get_one(ScheduleSlot, (schedule.name, slot), with_for_update=True)
        if known.outcome not in again:
            return False
        known.outcome, known.message_id, known.sent, known.finished = outcome, message.message_id, utc_now(), None
    if enabled:
        delay = round(random.uniform(0, schedule.jitter.total_seconds()) * 1000)  # noqa: S311  (no secret)
        schedule.actor.broker.enqueue(message, delay=delay or None)
    return True


class SlotOutcomes(dramatiq.Middleware):
    """Notes in the ledger how the job of a slot has ended; a later attempt overwrites it."""

    def __init__(self, engine: Engine) -> None:
        self.transaction = sessions(engine)

    def after_process_message(
        self,
        _broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Write done or failed."""
        self._write("failed" if exception or message.failed else "done", message)

    def after_skip_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """One that was not run has failed."""
        self._write("failed", message)

    def _write(self, outcome: str, message: dramatiq.MessageProxy) -> None:
        if "slot" not in message.options:
            return
        slot = ScheduleSlot.slot == datetime.fromisoformat(message.options["slot"])
        with self.transaction.begin() as session:
            session.execute(
                update(ScheduleSlot)
                .where(ScheduleSlot.schedule == message.options["schedule"], slot)
                .values(outcome=outcome, finished=utc_now())
            )


def forget_old(session: Session, before: datetime) -> int:
    """Delete slots that were sent before that time, and schedules that exist no more; returns how many slots."""
    gone = KnownSchedule.name.not_in(SCHEDULES.keys()), KnownSchedule.dealt_with < before
    session.execute(delete(KnownSchedule).where(*gone))
    old = delete(ScheduleSlot).where(ScheduleSlot.sent < before).returning(ScheduleSlot.slot)
    return len(session.scalars(old).all())


def run(
    transaction: Callable[[], AbstractContextManager[Session]],
    stop: threading.Event,
    disabled: Collection[str] = (),
) -> None:
    """Send due jobs until `stop` is set. An error is logged and never ends the loop.

    Args:
        transaction: opens the context manager of one transaction, which gives its session.
        stop: ends the loop at once, also while it waits.
        disabled: names of schedules that do not run.
    """
    failures = 0
    while not stop.is_set():
        try:
            pause = _send_all(transaction, disabled)
            failures = 0
        except OperationalError as error:
            failures += 1
            pause = min(2.0 ** min(failures, 5), LONGEST_PAUSE)
            logger.error("No jobs could be sent, next try in %.0f s: %s", pause, error.orig)
        stop.wait(pause)


def _send_all(transaction: Callable[[], AbstractContextManager[Session]], disabled: Collection[str]) -> float:
    """Send what is due; returns for how many seconds nothing else will be."""
    pause = LONGEST_PAUSE
    for schedule in SCHEDULES.values():
        try:
            with transaction() as session:
                now = database_now(session)
                enabled = schedule.name not in disabled
                if (count := send_due(schedule, session, now, enabled=enabled)) and enabled:
                    logger.info("schedule %s: jobs sent: %d", schedule.name, count)
            wait = (schedule.next_slot(now) - now).total_seconds()
            pause = min(pause, 0.0 if count == SLOTS_AT_ONCE else wait)
        except OperationalError:
            raise
        except Exception:
            logger.exception("schedule %s: could not send; trying again", schedule.name)
    return pause
