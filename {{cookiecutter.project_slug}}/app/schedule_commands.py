"""Commands for timed jobs."""

from datetime import UTC, datetime
from typing import Any

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

UNDONE = ("failed", "skipped")
OUTCOMES = ("sent", "done", *UNDONE)


class Name(click.ParamType[Schedule]):
    """The name of a schedule."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Schedule:
        """The schedule, or one line that names those there are."""
        if value not in SCHEDULES:
            self.fail(f"{value!r} is none of the schedules {', '.join(sorted(SCHEDULES))}", param, ctx)
        return SCHEDULES[value]


class Time(click.ParamType[datetime]):
    """A date or time in ISO 8601."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time, without a zone if none was given."""
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time, expected one like 2026-01-31 or 2026-01-31T03:00+01:00", param, ctx)


@click.group(cls=ServiceGroup)
def schedule() -> None:
    """Timed jobs: when they run, how that went, and running them for any date."""


@schedule.command("list")
@as_json
def list_schedules(as_json: bool) -> None:
    """List the schedules with their next slot and the outcome of the last one."""
    disabled, now = svcs.flask.get(Settings).schedule.disabled, utc_now()
    rows = []
    for name, known in sorted(SCHEDULES.items()):
        last = next(iter(_history(name, 1)), None)
        upcoming = None if name in disabled else known.next_slot(now)
        rows.append((name, known.cron, known.timezone.key, upcoming, last and last.slot, last and last.outcome))
    print_rows(("name", "cron", "timezone", "next", "last", "outcome"), rows, as_json=as_json)


@schedule.command()
@click.argument("known", type=Name(), required=False, metavar="[NAME]")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Print at most so many.")
@as_json
def history(known: Schedule | None, limit: int, as_json: bool) -> None:
    """List the latest slots of one schedule or of all, and how their jobs ended."""
    columns = ("schedule", "slot", "outcome", "sent", "finished", "message_id")
    rows = _history(known.name if known else None, limit)
    print_rows(columns, [[getattr(row, column) for column in columns] for row in rows], as_json=as_json)


@schedule.command()
@click.argument("known", type=Name(), metavar="NAME")
@click.option("--at", type=Time(), help="For this time, whether it is a slot or not. [default: now]")
@click.option("--from", "first", type=Time(), help="For all slots from this time on …")
@click.option("--to", "last", type=Time(), help="… up to this moment, included; a date is its midnight. [default: now]")
@click.option("--again", is_flag=True, help="Also for slots that are done, or whose jobs wait.")
def run(known: Schedule, at: datetime | None, first: datetime | None, last: datetime | None, again: bool) -> None:
    """Send the job of NAME for now, for another time, or for all slots of a period.

    Times without a zone are read in the time zone of the schedule. Slots that are done or wait are left out; those that
    have failed, or were skipped, are sent again.
    """
    if at and (first or last):
        raise click.UsageError("--at is for one time, --from and --to for many: use one or the other")
    if last and not first:
        raise click.UsageError("--to needs --from")
    now = utc_now().replace(microsecond=0)
    if first:
        slots = list(known.slots(_in_zone(first, known), _in_zone(last, known) if last else now))
    else:
        slots = [_in_zone(at, known) if at else now]
    with transaction(current_app) as session:
        sent = sum(send_slot(known, session, slot, again=OUTCOMES if again else UNDONE) for slot in slots)
    click.echo(f"jobs sent: {sent}; left out, because they are done or wait: {len(slots) - sent}")


def _in_zone(time: datetime, known: Schedule) -> datetime:
    return (time if time.tzinfo else time.replace(tzinfo=known.timezone)).astimezone(UTC)


def _history(name: str | None, limit: int) -> list[ScheduleSlot]:
    query = select(ScheduleSlot).order_by(ScheduleSlot.slot.desc()).limit(limit)
    if name:
        query = query.where(ScheduleSlot.schedule == name)
    return list(svcs.flask.get(Session).scalars(query))
