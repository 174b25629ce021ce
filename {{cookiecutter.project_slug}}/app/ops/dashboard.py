"""The page of administrators: what the service does, and what they can do about it."""

import functools
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import dramatiq
import structlog
import svcs
from dramatiq.errors import BrokerConnectionError
from flask import abort, flash, redirect, render_template, url_for
from flask_login import current_user, login_required
from markupsafe import Markup
from sqlalchemy import Engine, func, select, tuple_
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from app.command_line import relative
from app.logs import hide_in_text
from app.ops.charts import MINUTE, Chart, depth_chart, throughput_chart
from app.ops.error_log import LoggedError, recent_errors
from app.ops.sizes import Sizes
from app.ops.views import PendingMigrations, blueprint, check_services, in_words
from config import Settings, project_release, project_version
from database import queue_admin, queue_statistics, utc_now
from database.broker import TableBroker
from database.queue_admin import QueuedMessage, QueueStatus
from database.schedule import SCHEDULES, ScheduleSlot, send_slot

STARTED = utc_now()
MINUTES = 60
# So many jobs of each list, and errors, are shown.
MOST = 20

audit = structlog.stdlib.get_logger("app.audit")


class QueueView(NamedTuple):
    """A queue on the page. `status` is None while the broker's server cannot be reached."""

    name: str
    status: QueueStatus | None
    depth: Chart
    throughput: Chart


def for_administrators(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that is not there for anybody else."""

    @functools.wraps(view)
    def guarded(**values: str) -> Any:
        if not current_user.is_admin:
            abort(404)
        return view(**values)

    protected: Callable[..., Any] = login_required(guarded)
    return protected


@blueprint.get("/ops")
@for_administrators
def dashboard() -> str:
    """Everything at once, as it is now."""
    session, settings = svcs.flask.get(Session), svcs.flask.get(Settings)
    now = utc_now()
    statuses, jobs, queue_problem = _queued()
    errors, log_problem = _errors(settings.app_dir.error_log)
    found = check_services()
    return render_template(
        "ops/dashboard.html",
        now=now,
        host=socket.gethostname(),
        health={name: in_words(error) for name, error in found.items()},
        version=project_version(settings.root),
        release=project_release(settings.root),
        revisions=_revisions(),
        pending=isinstance(found["migrations"], PendingMigrations),
        started=STARTED,
        queues=_with_charts(statuses, session, now),
        jobs=jobs,
        totals=_totals(statuses),
        queue_problem=queue_problem,
        unseen=queue_admin.unseen(_broker()),
        schedules=_schedules(session, settings, now),
        errors=errors,
        log_problem=log_problem,
        sizes=svcs.flask.get(Sizes).get(),
        most=MOST,
    )


@blueprint.post("/ops/jobs/<id_>/retry")
@for_administrators
def retry_job(id_: str) -> Response:
    """Let one failed job wait again."""
    broker = _broker_alone()
    found = _find(broker, id_)
    rows = [message.row for message in found if message.state == "failed" and message.row is not None]
    if queue_admin.retry(broker, rows):
        audit.info("queue.retry", user=current_user.username, message_id=id_, job=found[0].job)
        flash(f"{found[0].job} waits again.")
    else:
        _flash_unchanged(found, ", not failed; nothing was changed")
    return redirect(url_for("ops.dashboard"))


@blueprint.post("/ops/jobs/retry")
@for_administrators
def retry_jobs() -> Response:
    """Let all failed jobs wait again."""
    broker = _broker_alone()
    count = queue_admin.retry(broker, queue_admin.failed_rows(broker, queue_admin.queue_names(broker)))
    if count:
        audit.info("queue.retry_all", user=current_user.username, jobs=count)
    flash(f"Jobs that wait again: {count}." if count else "No job has failed; nothing was changed.")
    return redirect(url_for("ops.dashboard"))


@blueprint.post("/ops/jobs/<id_>/cancel")
@for_administrators
def cancel_job(id_: str) -> Response:
    """Remove a job that waits or is delayed."""
    broker = _broker_alone()
    found = _find(broker, id_)
    unclaimed = [message for message in found if message.state in ("waiting", "delayed")]
    cancelled = [queue_admin.cancel(broker, message) for message in unclaimed]
    if any(cancelled):
        audit.info("queue.cancel", user=current_user.username, message_id=id_, job=found[0].job)
        flash(f"{found[0].job} is cancelled.")
    elif unclaimed:
        flash(f"{found[0].job} was taken by a worker at this moment, and is not cancelled.")
    else:
        _flash_unchanged(found, "; only what waits or is delayed can be cancelled")
    return redirect(url_for("ops.dashboard"))


@blueprint.post("/ops/schedules/<name>/run")
@for_administrators
def run_schedule(name: str) -> Response:
    """Send the job of a schedule for this moment."""
    if name not in SCHEDULES:
        abort(404)
    session, slot = svcs.flask.get(Session), utc_now().replace(microsecond=0)
    if send_slot(SCHEDULES[name], session, slot):
        session.commit()
        audit.info("schedule.run", user=current_user.username, schedule=name, slot=slot.isoformat())
        flash(f"{name} is sent for now.")
    else:
        flash(f"{name} was sent a moment ago already.")
    return redirect(url_for("ops.dashboard"))


@blueprint.errorhandler(BrokerConnectionError)
def tell_unreachable(error: BrokerConnectionError) -> Response:
    """Nothing was changed, as the server of the queue cannot be asked."""
    flash(f"The queue's server cannot be reached; nothing was changed. {hide_in_text(str(error))}")
    return redirect(url_for("ops.dashboard"))


@blueprint.app_template_filter()
def ago(time: datetime) -> Markup:
    """A time as people say it, with the exact one behind it."""
    exact = time.isoformat(timespec="seconds")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(exact, relative(time))


def _broker() -> TableBroker:
    broker = svcs.flask.get_abstract(dramatiq.Broker)
    assert isinstance(broker, TableBroker)  # noqa: S101
    return broker


def _broker_alone() -> TableBroker:
    """The broker, for changes, which are transactions of their own: on SQLite they would wait for the request's."""
    svcs.flask.get(Session).commit()
    return _broker()


def _find(broker: TableBroker, id_: str) -> list[QueuedMessage]:
    try:
        return [message for message in queue_admin.find(broker, id_) if message.id == id_]
    except LookupError:
        return []


def _flash_unchanged(found: list[QueuedMessage], reason: str) -> None:
    if found:
        flash(f"{found[0].job} is {found[0].state}{reason}.")
    else:
        flash("This job is gone: it has been cancelled, or has run meanwhile.")


def _queued() -> tuple[list[QueueStatus], dict[str, list[QueuedMessage]], str]:
    """What is in the queues: their counts, jobs by state, and what is wrong if that cannot be told."""
    broker = _broker()
    try:
        names = queue_admin.queue_names(broker)
        statuses = [queue_admin.status(broker, name) for name in names]
        lists = {"running": ["running"], "failed": ["failed"], "waiting": ["waiting", "delayed"]}
        jobs = {title: queue_admin.find_all(broker, names, states, limit=MOST) for title, states in lists.items()}
    except BrokerConnectionError as error:
        return [], {}, f"The queue's server cannot be reached: {hide_in_text(str(error))}"
    return statuses, jobs, ""


def _totals(statuses: list[QueueStatus]) -> dict[str, int | None]:
    """How many jobs there are for each list of them; None where a server does not tell."""
    running = [status.running for status in statuses]
    return {
        "failed": sum(status.failed for status in statuses),
        "running": None if None in running else sum(filter(None, running)),
        "waiting": sum(status.waiting + status.delayed for status in statuses),
    }


def _with_charts(statuses: list[QueueStatus], session: Session, now: datetime) -> list[QueueView]:
    start = now.replace(second=0, microsecond=0) - (MINUTES - 1) * MINUTE
    minutes = {(row.queue, row.minute): row for row in queue_statistics.minutes(session, start)}
    known = {status.queue: status for status in statuses}
    times = [start + number * MINUTE for number in range(MINUTES)]
    views = []
    for name in sorted({*known, *(queue for queue, _ in minutes)}):
        rows = [minutes.get((name, time)) for time in times]
        depth = depth_chart(start, [row.waiting if row else None for row in rows])
        done, failed = ([getattr(row, kind, 0) for row in rows] for kind in ("done", "failed"))
        views.append(QueueView(name, known.get(name), depth, throughput_chart(start, done, failed)))
    return views


def _schedules(session: Session, settings: Settings, now: datetime) -> list[dict[str, Any]]:
    newest = select(ScheduleSlot.schedule, func.max(ScheduleSlot.slot)).group_by(ScheduleSlot.schedule)
    slots = select(ScheduleSlot).where(tuple_(ScheduleSlot.schedule, ScheduleSlot.slot).in_(newest))
    last = {row.schedule: row for row in session.scalars(slots)}
    disabled = settings.schedule.disabled
    return [
        {"known": known, "next": None if name in disabled else known.next_slot(now), "last": last.get(name)}
        for name, known in sorted(SCHEDULES.items())
    ]


def _revisions() -> str:
    from database.migrations import applied

    return ", ".join(sorted(applied(svcs.flask.get(Engine)))) or "none"


def _errors(path: Path) -> tuple[list[LoggedError], str]:
    try:
        return recent_errors(path, MOST), ""
    except OSError as error:
        return [], f"{path} cannot be read: {error.strerror}"
