"""Commands for timed jobs."""

from collections import Counter
from datetime import UTC, datetime

import click
import svcs
from flask import current_app
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.command_line import ServiceGroup, as_json, print_rows
from app.services import transaction
from config import Settings
from database import utc_now
from database.schedule import SCHEDULES, Schedule, ScheduleSlot, send_slot


def name(text: str) -> Schedule:
    """The schedule of that name."""
    if text not in SCHEDULES:
        raise ValueError(f"{text!r} is none of the schedules {', '.join(sorted(SCHEDULES))}")
    return SCHEDULES[text]


def time(text: str) -> datetime:
    """A date or time in ISO 8601, with or without a zone."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time, expected one like 2026-01-31 or 2026-01-31T03:00+01:00") from None


@click.group(cls=ServiceGroup)
def schedule() -> None:
    """Timed jobs: when they run, how that went, and running them for any date."""


@schedule.command("list")
@as_json
def list_schedules(as_json: bool) -> None:
    """List the schedules with their next slot and how the last one went. Times are UTC."""
    disabled, now, rows = svcs.flask.get(Settings).schedule.disabled, utc_now(), []
    for known in SCHEDULES.values():
        slots = select(ScheduleSlot).where(ScheduleSlot.schedule == known.name, ScheduleSlot.slot <= now)
        last = svcs.flask.get(Session).scalar(slots.order_by(ScheduleSlot.slot.desc()).limit(1))
        upcoming = None if known.name in disabled else known.next_slot(now)
        rows.append((known.name, known.cron, known.timezone, upcoming, last and last.slot, last and last.outcome))
    print_rows(("name", "cron", "timezone", "next", "last", "outcome"), sorted(rows), as_json=as_json)


@schedule.command()
@click.argument("known", type=name, required=False, metavar="[NAME]")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Print at most so many.")
@as_json
def history(known: Schedule | None, limit: int, as_json: bool) -> None:
    """List the latest slots of one schedule or of all, and how their jobs ended. Times are UTC."""
    columns = ("schedule", "slot", "outcome", "sent", "finished", "message_id")
    slots = select(ScheduleSlot).order_by(ScheduleSlot.slot.desc()).limit(limit)
    found = svcs.flask.get(Session).scalars(slots.filter_by(schedule=known.name) if known else slots)
    print_rows(columns, [[getattr(slot, name) for name in columns] for slot in found], as_json=as_json)


@schedule.command()
@click.argument("known", type=name, metavar="NAME")
@click.option("--at", type=time, help="For this time, whether it is a slot or not. [default: now]")
@click.option("--from", "first", type=time, help="For all slots from this time on …")
@click.option("--to", "last", type=time, help="… up to this one, included; a date is its midnight. [default: now]")
@click.option("--again", is_flag=True, help="Also for slots whose job is done, waits, or will be tried again.")
def run(known: Schedule, at: datetime | None, first: datetime | None, last: datetime | None, again: bool) -> None:
    """Send the job of NAME for now, for another time, or for all slots of a period.

    Times without a zone are read in the time zone of the schedule. A slot whose job is done, waits, or will be tried
    again is left out; one that has failed or was skipped is sent again.
    """
    if (at and first) or (last and not first):
        raise click.UsageError("expected --at, or --from with or without --to")

    def utc(time: datetime) -> datetime:
        return (time if time.tzinfo else time.replace(tzinfo=known.timezone)).astimezone(UTC)

    now = utc_now().replace(microsecond=0)
    slots = known.slots(utc(first), utc(last or now)) if first else [utc(at or now)]
    undone = ("failed", "skipped")
    wanted = (*undone, "sent", "retrying", "done") if again else undone
    is_sent: Counter[bool] = Counter()
    for slot in slots:
        # A transaction for each, because a long one would hold up everything else that writes.
        with transaction(current_app) as session:
            is_sent[bool(send_slot(known, session, slot, again=wanted))] += 1
    click.echo(f"jobs sent: {is_sent[True]}; left out: {is_sent[False]}")
