"""Commands for the messages of the queues."""

import json
import sys
from datetime import datetime
from typing import Any

import click
import dramatiq
import svcs

from app.command_line import ServiceGroup, WrongInput, as_json, print_json, print_table, printable, relative
from database import queue_admin
from database.broker import TableBroker
from database.queue_admin import STATES, QueuedMessage

SHORT_ID = 8


@click.group(cls=ServiceGroup)
def queue() -> None:
    """The jobs that wait, run, or have failed.

    A job's ID may be cut to its first 8 characters or more, as long as no other one begins so.
    """


of_queue = click.option("--queue", "name", metavar="QUEUE", help="Only this queue; all if not given.")
at_most = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Print at most so many."
)


@queue.command()
@as_json
def status(as_json: bool) -> None:
    """Count the jobs of each queue.

    The time is since when the oldest of the waiting ones waits. What a worker has fetched to start it next counts as
    running.
    """
    broker = _broker()
    found = [queue_admin.status(broker, name) for name in queue_admin.queue_names(broker)]
    if as_json:
        print_json([row._asdict() for row in found])
    else:
        print_table(("QUEUE", "WAITING", "DELAYED", "RUNNING", "FAILED", "OLDEST WAITS SINCE"), found)
    _tell_unseen(broker)


@queue.command("list")
@of_queue
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@at_most
@as_json
def list_(name: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List jobs.

    First come running ones, then failed, waiting and delayed ones. WHEN is since when a job waits, when it failed, when
    it is due, or until when the claim of its worker lasts, which a living worker renews.
    """
    broker = _broker()
    found = queue_admin.find_all(broker, _queues(broker, name), (state,) if state else STATES, limit=limit + 1)
    if as_json:
        print_json([message._asdict() for message in found[:limit]])
    else:
        rows = [(m.id[:SHORT_ID], m.queue, m.job, m.state, m.when, m.attempts, m.worker or m.last_line) for m in found]
        print_table(("ID", "QUEUE", "JOB", "STATE", "WHEN", "TRIES", "WORKER OR ERROR"), rows[:limit])
    if len(found) > limit:
        click.echo(f"There are more than these {limit}; --limit prints more.", err=True)
    if state != "failed":
        _tell_unseen(broker)


@queue.command()
@of_queue
@at_most
@as_json
@click.pass_context
def failed(context: click.Context, /, **options: Any) -> None:
    """List failed jobs, the last one first, and what went wrong."""
    context.invoke(list_, state="failed", **options)


@queue.command()
@click.argument("id_", metavar="ID")
@as_json
def show(id_: str, as_json: bool) -> None:
    """Show everything about a job.

    That is its arguments, options and times, and the traceback of its last error.
    """
    fields = _find(_broker(), id_)[0]._asdict()
    if as_json:
        print_json(fields)
        return
    error = fields.pop("error")
    for name, value in fields.items():
        if isinstance(value, datetime):
            value = f"{value.isoformat(timespec='seconds')} ({relative(value)})"
        elif isinstance(value, tuple | dict):
            value = json.dumps(value, default=str)
        if value is not None:
            click.echo(f"{name:10} {printable(str(value))}")
    if error:
        click.echo(f"\n{printable(error.rstrip())}")


@queue.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All failed jobs.")
@of_queue
def retry(ids: tuple[str, ...], everything: bool, name: str | None) -> None:
    """Let failed jobs wait again.

    They run as soon as a worker is free, and have all their attempts again. If one ID is wrong, nothing is changed.
    """
    if bool(ids) == everything or (ids and name):
        raise click.UsageError("give IDs, or --all, which --queue can narrow")
    broker = _broker()
    rows = queue_admin.failed_rows(broker, _queues(broker, name)) if everything else []
    for message in [message for id_ in ids for message in _find(broker, id_)]:
        if message.state != "failed" or message.row is None:
            raise WrongInput(f"{message.id}: is {message.state}, not failed; nothing was changed")
        rows.append(message.row)
    click.echo(f"jobs that wait again: {queue_admin.retry(broker, rows)}")


@queue.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def cancel(ids: tuple[str, ...]) -> None:
    """Remove jobs that wait or are delayed.

    One that runs goes on, and the command then exits with 1.
    """
    broker = _broker()
    # What a server does not show may be there all the same, and is not the mistake of who asks.
    refusal = click.ClickException if queue_admin.unseen(broker) else WrongInput
    count, refused = 0, []
    for message in [message for id_ in dict.fromkeys(ids) for message in _find(broker, id_, refusal)]:
        if message.state not in ("waiting", "delayed"):
            refused.append(f"{message.id}: is {message.state}; only what waits or is delayed can be cancelled")
        elif queue_admin.cancel(broker, message):
            count += 1
        else:
            refused.append(f"{message.id}: was taken at this moment, and is not cancelled")
    click.echo(f"jobs cancelled: {count}")
    for line in refused:
        click.echo(f"Error: {line}", err=True)
    sys.exit(1 if refused else 0)


@queue.command()
@of_queue
@click.option("--failed", "of_failed", is_flag=True, help="Drop the failed jobs, and no others.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str | None, of_failed: bool, yes: bool) -> None:
    """Drop all jobs that wait or are delayed.

    Those that run go on, and those that have failed stay.
    """
    broker = _broker()
    states = ("failed",) if of_failed else ("waiting", "delayed")
    queues = _queues(broker, name)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("without a terminal to ask on, this needs --yes")
        counts = [queue_admin.status(broker, name)._asdict() for name in queues]
        count = sum(row[state] for row in counts for state in states)
        click.confirm(f"Drop {count} {' and '.join(states)} jobs of {', '.join(queues)}?", abort=True, err=True)
    click.echo(f"jobs dropped: {sum(queue_admin.purge(broker, name, states) for name in queues)}")


def _broker() -> TableBroker:
    broker = svcs.flask.get_abstract(dramatiq.Broker)
    assert isinstance(broker, TableBroker)  # noqa: S101
    return broker


def _queues(broker: TableBroker, name: str | None) -> list[str]:
    """All queues, or the one of that name."""
    names = queue_admin.queue_names(broker)
    if name is None:
        return names
    if name not in names:
        raise WrongInput(f"there is no queue {name!r}, only {', '.join(names)}")
    return [name]


def _find(broker: TableBroker, id_: str, refusal: type[click.ClickException] = WrongInput) -> list[QueuedMessage]:
    if len(id_) < SHORT_ID or not id_.isprintable():
        raise WrongInput(f"{id_!r}: expected at least the first {SHORT_ID} characters of an ID")
    try:
        return queue_admin.find(broker, id_)
    except LookupError as error:
        raise refusal("; ".join(filter(None, (str(error), queue_admin.unseen(broker))))) from None


def _tell_unseen(broker: TableBroker) -> None:
    if line := queue_admin.unseen(broker):
        click.echo(line, err=True)
