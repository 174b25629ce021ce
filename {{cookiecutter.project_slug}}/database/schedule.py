"""Timed jobs: each slot of a schedule becomes a job exactly once, however many schedulers run.

A slot is a row under a unique key, written in one transaction with the message of its job. Whoever writes the row
first sends the job; everybody else finds it taken.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dramatiq
from cronsim import CronSim, CronSimError
from sqlalchemy import String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from database.base import Base, utc_now

CatchUp = Literal["none", "latest", "all"]
P = ParamSpec("P")
R = TypeVar("R")

# A slot this young is on time, not missed.
ON_TIME = timedelta(minutes=1)
LONGEST_PAUSE = 30.0

logger = logging.getLogger(__name__)


class ScheduleSlot(Base):
    """A slot that was dealt with. The first row of a schedule, without a message, marks when it was first seen."""

    __tablename__ = "schedule_slot"

    schedule: Mapped[str] = mapped_column(String(100), primary_key=True)
    slot: Mapped[datetime] = mapped_column(primary_key=True)
    message_id: Mapped[str | None] = mapped_column(String(36))


@dataclass(frozen=True)
class Schedule:
    """When an actor runs by itself."""

    actor: dramatiq.Actor[..., Any]
    cron: str
    timezone: ZoneInfo
    catch_up: CatchUp

    @property
    def name(self) -> str:
        """The actor's name, which is unique."""
        return self.actor.actor_name

    def next_slot(self, after: datetime) -> datetime:
        """The first slot later than `after`, in UTC."""
        # In the hour that a clock change repeats, CronSim starts with a slot that is over.
        return next(slot for slot in self._slots(after) if slot > after)

    def due_slots(self, since: datetime, now: datetime) -> Iterator[datetime]:
        """The slots later than `since` and not later than `now` that have to run, oldest first."""
        if self.catch_up == "all":
            while (since := self.next_slot(since)) <= now:
                yield since
            return
        # Backwards from behind that hour, because CronSim would leave out a slot in it.
        latest = next(slot for slot in self._slots(now + timedelta(hours=2), reverse=True) if slot <= now)
        if latest > since and (self.catch_up == "latest" or now - latest < ON_TIME):
            yield latest

    def _slots(self, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        for slot in CronSim(self.cron, start.astimezone(self.timezone), reverse=reverse):
            yield slot.astimezone(UTC)


SCHEDULES: dict[str, Schedule] = {}


def scheduled(
    cron: str, *, timezone: str = "UTC", catch_up: CatchUp = "latest"
) -> Callable[[dramatiq.Actor[P, R]], dramatiq.Actor[P, R]]:
    """Run an actor at every slot of a cron line. It gets the slot's time as ISO 8601 text in UTC.

    Args:
        cron: minute, hour, day of month, month, day of week; as in cron(5).
        timezone: an IANA name; the cron line is read in its local time.
        catch_up: which slots to run that were missed while no scheduler ran.

    Raises:
        ValueError: the cron line or the time zone is not one.
    """
    try:
        CronSim(cron, utc_now())
        zone = ZoneInfo(timezone)
    except CronSimError as error:
        raise ValueError(f"{cron!r} is not a cron line: {error}") from None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{timezone!r} is not a time zone") from None

    def declare(actor: dramatiq.Actor[P, R]) -> dramatiq.Actor[P, R]:
        SCHEDULES[actor.actor_name] = Schedule(actor, cron, zone, catch_up)
        return actor

    return declare


def send_due(schedule: Schedule, session: Session, now: datetime) -> int:
    """Send the job of every slot that is due and not taken; returns how many were sent.

    The caller's session must be the one that the broker stores messages in.
    """
    since = session.scalar(select(func.max(ScheduleSlot.slot)).where(ScheduleSlot.schedule == schedule.name))
    if since is None:
        _take(session, ScheduleSlot(schedule=schedule.name, slot=now))
        return 0
    sent = 0
    for slot in schedule.due_slots(since, now):
        message = schedule.actor.message(slot.isoformat())
        if _take(session, ScheduleSlot(schedule=schedule.name, slot=slot, message_id=message.message_id)):
            schedule.actor.broker.enqueue(message)
            sent += 1
    return sent


def _take(session: Session, slot: ScheduleSlot) -> bool:
    try:
        with session.begin_nested():
            session.add(slot)
    except IntegrityError:
        return False
    return True


def run(transaction: Callable[[], Any], stop: threading.Event) -> None:
    """Send due jobs until `stop` is set. An error is logged and never ends the loop.

    Args:
        transaction: opens the context manager of one transaction, which gives its session.
        stop: ends the loop at once, also while it waits.
    """
    while not stop.is_set():
        for schedule in SCHEDULES.values():
            try:
                with transaction() as session:
                    if sent := send_due(schedule, session, utc_now()):
                        logger.info("schedule %s: sent %d", schedule.name, sent)
            except Exception:
                logger.exception("schedule %s: could not send; trying again", schedule.name)
        now = utc_now()
        upcoming = [(schedule.next_slot(now) - now).total_seconds() for schedule in SCHEDULES.values()]
        stop.wait(min([LONGEST_PAUSE, *upcoming]))
