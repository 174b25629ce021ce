"""Jobs of every service, whatever its features."""

import logging
import time
from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy import delete
from sqlalchemy.orm import Session

from backup.archive import create
from config import Settings
from database import queue_admin, rate_limits, schedule, utc_now
from database.job_counts import JobCount
from database.schedule import scheduled

TWO_DAYS = 48 * 3600

logger = logging.getLogger(__name__)


@scheduled("0 2 * * *")
@dramatiq.actor(time_limit=12 * 3600 * 1000, max_retries=3)  # It may have to read a large disk.
def back_up(slot: str) -> None:
    """Make a backup where `config/backup.yaml` says, as `python main.py backup create` does."""
    logger.info("backed up to %s; due %s", create(svcs.flask.get(Settings)), slot)


@scheduled("30 3 * * *")
@dramatiq.actor
def remove_expired(slot: str) -> None:  # noqa: ARG001  (every timed job gets its slot)
    """Delete what is no longer needed: rate limits, old slots of schedules, old failed jobs, counts of jobs."""
    session, settings = svcs.flask.get(Session), svcs.flask.get(Settings)
    session.execute(rate_limits.REMOVE_EXPIRED)
    schedule.forget_old(session, utc_now() - timedelta(days=settings.schedule.history_days))
    queue_admin.forget_old(session, utc_now() - timedelta(days=settings.queue.failed_days))
    session.execute(delete(JobCount).where(JobCount.hour < time.time() - TWO_DAYS))


@dramatiq.actor(max_retries=0)
def do_nothing() -> None:
    """Show that a worker is alive: `python main.py check` sends it."""
