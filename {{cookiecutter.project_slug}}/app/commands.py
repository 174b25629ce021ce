"""Commands of every service: `main.py queue` for jobs that wait in the database, `main.py schedule` for timed jobs."""

from collections import Counter
from datetime import UTC, datetime

import click
import dramatiq
import svcs
from dramatiq.errors import DecodeError
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.command_line import as_json, print_rows
from app.services import transaction
from config import Settings
from database import queue_admin, utc_now
from database.broker import DatabaseBroker
from database.schedule import SCHEDULES, Schedule, ScheduleSlot, send_slot


@click.group(cls=AppGroup)
def queue() -> None:
    """The jobs that wait, run, or have failed."""
    if not isinstance(dramatiq.get_broker(), DatabaseBroker):
        raise click.ClickException("the jobs are on the server of QUEUE_URL; docs/queue.md has the commands for it")


@queue.command()
@as_json
def status(as_json: bool) -> None:
    """Count the jobs of each queue."""
    print_rows(("queue", "state", "jobs"), queue_admin.counts(svcs.flask.get(Session)), as_json=as_json)


@queue.command("list")
@click.option("--state", type=click.Choice(list(queue_admin.STATES)), help="Only jobs in this state.")
@click.option("--limit", default=50, show_default=True, help="Print at most this many.")
@as_json
def list_jobs(state: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the latest first. WHEN is the time at which one is due, has failed, or its worker's claim ends."""
    rows = []
    for row, found in queue_admin.listed(svcs.flask.get(Session), state, limit):
        try:
            job = str(dramatiq.Message.decode(row.payload))
        except DecodeError:
            job = row.actor
        message_id, error = row.message_id, row.error
        if not as_json:
            message_id, error = message_id[:8], error and error.rstrip().rpartition("\n")[2]
        rows.append((message_id, row.queue, job, found, datetime.fromtimestamp(row.due, UTC), error))
    print_rows(("id", "queue", "job", "state", "when", "error"), rows, as_json=as_json)


@queue.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All failed jobs.")
def retry(ids: tuple[str, ...], everything: bool) -> None:
    """Retry failed jobs: those of the given IDS, of which a unique beginning is enough, or all."""
    if bool(ids) == everything:
        raise click.UsageError("give IDS or --all")
    with transaction(current_app) as session:
        click.echo(f"jobs that wait again: {queue_admin.retry(session, ids)}")


@queue.command()
@click.argument("ids", nargs=-1, required=True)
def cancel(ids: tuple[str, ...]) -> None:
    """Remove jobs of these IDS, unless they run."""
    with transaction(current_app) as session:
        click.echo(f"jobs cancelled: {queue_admin.cancel(session, ids)}")


@queue.command()
@click.argument("state", type=click.Choice(["waiting", "delayed", "failed"]))
@click.confirmation_option(prompt="Drop all these jobs?")
def purge(state: str) -> None:
    """Drop all jobs that are in a STATE."""
    with transaction(current_app) as session:
        click.echo(f"jobs dropped: {queue_admin.purge(session, state)}")


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


@click.group(cls=AppGroup)
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
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Print at most this many.")
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
    wanted = ("failed", "skipped", *(("sent", "retrying", "done") if again else ()))
    is_sent: Counter[bool] = Counter()
    for slot in slots:
        # A transaction for each, because a long one would hold up everything else that writes.
        with transaction(current_app) as session:
            is_sent[bool(send_slot(known, session, slot, again=wanted))] += 1
    click.echo(f"jobs sent: {is_sent[True]}; left out: {is_sent[False]}")
