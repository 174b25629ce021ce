"""Commands for timed jobs: when they run, how that went, and running them for any date."""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import click
import svcs
from flask import current_app
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.command_line import ServiceGroup, as_json, print_json, print_table
from app.services import transaction
from config import Settings
from database import utc_now
from database.schedule import SCHEDULES, Schedule, ScheduleSlot, send_slot

AT_ONCE = 100
UNDONE = ("failed", "skipped")
OUTCOMES = ("sent", "done", *UNDONE)
LONGEST_PAUSE = 2.0


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
    """All schedules, with their next run and how the last one went."""
    disabled = svcs.flask.get(Settings).schedule.disabled
    now = utc_now()
    rows = []
    for name, known in sorted(SCHEDULES.items()):
        last = next(iter(_history(name, 1)), None)
        rows.append(
            {
                "name": name,
                "when": known.definition,
                "catch_up": known.catch_up,
                "enabled": name not in disabled,
                "next": None if name in disabled else known.next_slot(now),
                "last": last and last.slot,
                "outcome": last and last.outcome,
            }
        )
    if as_json:
        print_json(rows)
    else:
        header = ("NAME", "WHEN", "CATCH UP", "ENABLED", "NEXT", "LAST SLOT", "OUTCOME")
        print_table(header, [tuple(row.values()) for row in rows])


@schedule.command()
@click.argument("known", type=Name(), required=False, metavar="[NAME]")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many, latest first.")
@as_json
def history(known: Schedule | None, limit: int, as_json: bool) -> None:
    """The latest slots, of one schedule or of all: when they were sent, and how their jobs ended."""
    columns = ("schedule", "slot", "outcome", "sent", "finished", "message_id")
    rows = _history(known.name if known else None, limit)
    if as_json:
        print_json([{column: getattr(row, column) for column in columns} for row in rows])
    else:
        shown = [(row.schedule, f"{row.slot:%Y-%m-%d %H:%M:%S}", row.outcome, row.sent, row.finished) for row in rows]
        print_table(("SCHEDULE", "SLOT", "OUTCOME", "SENT", "ENDED"), shown)


@schedule.command()
@click.argument("known", type=Name(), metavar="NAME")
@click.option("--at", type=Time(), help="For this time, whether it is a slot or not. [default: now]")
@click.option("--from", "first", type=Time(), help="For all slots from this time on …")
@click.option("--to", "last", type=Time(), help="… up to this moment, included; a date is its midnight. [default: now]")
@click.option("--again", is_flag=True, help="Also for slots that are done, or whose jobs wait.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the jobs have ended.")
def run(
    known: Schedule, at: datetime | None, first: datetime | None, last: datetime | None, again: bool, no_wait: bool
) -> None:
    """Send the job of NAME now, for another time, or for all slots of a period, and wait until it has ended.

    Times without a zone are read in the time zone of the schedule. Slots that are done or wait are left out; those that
    have failed, or were skipped, are sent again.
    """
    if at and (first or last):
        raise click.UsageError("--at is for one time, --from and --to for many: use one or the other")
    if last and not first:
        raise click.UsageError("--to needs --from")
    if first and last and _in_zone(last, known) < _in_zone(first, known):
        raise click.UsageError("--to is before --from")
    now = utc_now()
    if first:
        until = _in_zone(last, known) if last else now
        slots = list(known.slots(_in_zone(first, known) - datetime.resolution, until))
    else:
        slots = [_in_zone(at, known) if at else now.replace(microsecond=0)]
    sent = _send(known, slots, again)
    left_out = len(slots) - len(sent)
    note = f", {left_out} are done or wait already (--again sends them again)" if left_out else ""
    click.echo(f"{known.name}: {len(sent)} sent{note}", err=True)
    if sent and not no_wait:
        click.echo("waiting for the workers; Ctrl-C leaves the jobs in the queue", err=True)
    if sent and not no_wait and (failed := _wait(known, sent)):
        raise click.ClickException(f"{failed} of {len(sent)} failed; see: python main.py queue failed")


def _in_zone(time: datetime, known: Schedule) -> datetime:
    return (time if time.tzinfo else time.replace(tzinfo=known.timezone)).astimezone(UTC)


def _send(known: Schedule, slots: list[datetime], again: bool) -> list[datetime]:
    sent = []
    with _progress() as progress:
        for start in progress.track(range(0, len(slots), AT_ONCE), description="sending"):
            with transaction(current_app) as session:
                some = slots[start : start + AT_ONCE]
                sent += [slot for slot in some if send_slot(known, session, slot, again=OUTCOMES if again else UNDONE)]
    return sent


def _wait(known: Schedule, slots: list[datetime]) -> int:
    """Wait until the jobs of all these slots have ended; returns how many have failed for now."""
    period = ScheduleSlot.slot.between(slots[0], slots[-1])
    counts = select(ScheduleSlot.outcome, func.count()).where(ScheduleSlot.schedule == known.name, period)
    pause = 0.1
    try:
        with _progress() as progress:
            bar = progress.add_task("running", total=len(slots))
            while True:
                with current_app.app_context():
                    found = svcs.flask.get(Session).execute(counts.group_by(ScheduleSlot.outcome)).all()
                outcomes = Counter({row[0]: row[1] for row in found})
                progress.update(bar, completed=len(slots) - outcomes["sent"])
                if not outcomes["sent"]:
                    return outcomes["failed"]
                time.sleep(pause)
                pause = min(pause * 1.2, LONGEST_PAUSE)
    except KeyboardInterrupt:
        raise click.ClickException("no longer waiting; the jobs stay in the queue") from None


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal)


def _history(name: str | None, limit: int) -> list[ScheduleSlot]:
    query = select(ScheduleSlot).order_by(ScheduleSlot.slot.desc()).limit(limit)
    if name:
        query = query.where(ScheduleSlot.schedule == name)
    return list(svcs.flask.get(Session).scalars(query))
