"""The page of administrators: what the service does, and what they can do about it."""

import mailbox
from collections import Counter, defaultdict
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from itertools import islice
from typing import Any
from uuid import UUID

import dramatiq
import svcs
from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask_login import current_user
from markupsafe import Markup
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from app.audit import audit
from app.extensions import login_manager
from app.ops.error_log import LoggedError, errors
from app.ops.views import in_words
from app.services import check_services
from config import Settings, project_release, project_version
from database import queue_admin, utc_now
from database.broker import DatabaseBroker
from database.job_counts import JobCount
from database.schedule import SCHEDULES, ScheduleSlot, send_slot

HOUR = 3600
UNITS = ((24 * HOUR, "d"), (HOUR, "h"), (60, "min"), (1, "s"))
SERVERS = {"amqp": "RabbitMQ", "redi": "Redis"}
# The most jobs, and errors, that a list shows.
MOST = 20

blueprint = Blueprint("operations", __name__, url_prefix="/ops", template_folder="templates")


@blueprint.before_request
def require_administrator() -> Any:
    """Ask visitors to log in; for users who are no administrators there is no such page."""
    if not current_user.is_authenticated:
        return login_manager.unauthorized()
    return None if current_user.is_admin else abort(404)


@blueprint.get("")
def dashboard() -> str:
    from database.migrations import applied

    session, settings, broker = svcs.flask.get(Session), svcs.flask.get(Settings), dramatiq.get_broker()
    queues: dict[str, Counter[str]] = {name: Counter() for name in broker.get_declared_queues()}
    for queue, state, count in queue_admin.counts(session):
        queues.setdefault(queue, Counter())[state] = count
    # A clock that was ahead for a while has left slots of the future.
    last_slot = select(ScheduleSlot).where(ScheduleSlot.slot <= utc_now()).order_by(ScheduleSlot.slot.desc()).limit(1)
    try:
        logged, log_problem = list(islice(errors(settings.app_dir.error_log), MOST)), ""
    except OSError as error:
        logged, log_problem = list[LoggedError](), f"{settings.app_dir.error_log} cannot be read: {error.strerror}."
    return render_template(
        "ops/dashboard.html",
        now=utc_now(),
        health={name: in_words(error) for name, error in check_services().items()},
        version=project_version(settings.root),
        release=project_release(settings.root),
        revisions=sorted(applied(svcs.flask.get(Engine))),
        queue_server=None if isinstance(broker, DatabaseBroker) else SERVERS[settings.queue.url[:4]],
        queues=queues,
        totals=sum(queues.values(), Counter[str]()),
        jobs={state: queue_admin.listed(session, state, MOST) for state in queue_admin.STATES},
        schedules=SCHEDULES,
        last_slots={name: session.scalar(last_slot.where(ScheduleSlot.schedule == name)) for name in SCHEDULES},
        errors=logged,
        log_problem=log_problem,
        most_listed=MOST,
        **_last_day(session),
    )


@blueprint.get("/mail")
def mail() -> str:
    """Where nobody sends mails: those that were kept, the latest first."""
    settings = svcs.flask.get(Settings)
    if settings.environment == "production" or settings.mail.url:
        abort(404)
    box = mailbox.Maildir(settings.app_dir.mails)
    latest = sorted(box.keys(), reverse=True)[:MOST]
    mails = [message_from_bytes(box.get_bytes(key), policy=default) for key in latest]
    return render_template("ops/mail.html", mails=mails)


@blueprint.post("/jobs/retry", defaults={"message_id": None})
@blueprint.post("/jobs/<uuid:message_id>/retry")
def retry(message_id: UUID | None) -> Response:
    changed = queue_admin.retry(svcs.flask.get(Session), [str(message_id)] if message_id else [])
    if not changed:
        return _back("Nothing was changed: no such job has failed.")
    return _back(f"Jobs that wait again: {changed}.", "queue.retry", message_id=str(message_id or "all"), jobs=changed)


@blueprint.post("/jobs/<uuid:message_id>/cancel")
def cancel(message_id: UUID) -> Response:
    if not queue_admin.cancel(svcs.flask.get(Session), [str(message_id)]):
        return _back("Nothing was changed: this job runs now, or is gone.")
    return _back("The job is removed.", "queue.cancel", message_id=str(message_id))


@blueprint.post("/schedules/<name>/run")
def run_schedule(name: str) -> Response:
    slot = utc_now().replace(microsecond=0)
    if not send_slot(SCHEDULES.get(name) or abort(404), svcs.flask.get(Session), slot):
        return _back(f"Nothing was changed: {name} was sent a moment ago.")
    return _back(f"The job {name} is sent.", "schedule.run", schedule=name, slot=slot.isoformat())


@blueprint.app_template_filter()
def ago(when: datetime | float) -> Markup:
    """A time, or seconds since the epoch, as people say it; the exact time is behind it."""
    time = when if isinstance(when, datetime) else datetime.fromtimestamp(when, UTC)
    seconds = (time - utc_now()).total_seconds()
    size, unit = next((pair for pair in UNITS if abs(seconds) >= pair[0]), UNITS[-1])
    text = f"in {seconds // size:.0f} {unit}" if seconds > 0 else f"{-seconds // size:.0f} {unit} ago"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(time.isoformat(timespec="seconds"), text)


def _back(message: str, action: str = "", **what: object) -> Response:
    """Go back to the page and show a message there; an action is noted in the audit log."""
    if action:
        audit(action, **what)
    flash(message)
    return redirect(url_for("operations.dashboard"))


def _last_day(session: Session) -> dict[str, Any]:
    """How many jobs were done and failed in the last 24 hours: by hour for the chart, and by name."""
    last = int(utc_now().timestamp()) // HOUR * HOUR
    hours = {last - age * HOUR: Counter[str]() for age in reversed(range(24))}
    by_job = defaultdict[str, Counter[str]](Counter)
    for row in session.scalars(select(JobCount).where(JobCount.hour.in_(hours))):
        hours[row.hour][row.outcome] += row.jobs
        by_job[row.actor][row.outcome] += row.jobs
    by_hour = {f"{datetime.fromtimestamp(hour, UTC):%H:%M}": counts for hour, counts in hours.items()}
    return {"by_hour": by_hour, "by_job": by_job, "most": max(counts.total() for counts in hours.values())}
