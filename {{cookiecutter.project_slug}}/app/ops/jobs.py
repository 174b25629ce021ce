"""Jobs that keep the service tidy, and safe."""

import logging
from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy.orm import Session

from backup.create import create
from config import Settings
from database import once, queue_statistics, rate_limits, schedule, utc_now
from database.schedule import scheduled

# Milliseconds after which a backup is given up: it may have to read a large disk.
BACKUP_TIME_LIMIT = 12 * 3600 * 1000

logger = logging.getLogger(__name__)


@scheduled("30 3 * * *", catch_up="latest")
@dramatiq.actor
def remove_expired(slot: str) -> None:
    """Delete what has served its time: rate limits, keys of work done once, old slots of schedules."""
    session = svcs.flask.get(Session)
    kept = timedelta(days=svcs.flask.get(Settings).schedule.history_days)
    limits, keys = rate_limits.remove_expired(session), once.forget_old(session)
    slots = schedule.forget_old(session, utc_now() - kept)
    minutes = queue_statistics.forget_old(session, utc_now() - timedelta(days=1))
    logger.info("removed %d rate limits, %d keys, %d slots, %d minutes; due %s", limits, keys, slots, minutes, slot)


@scheduled("0 2 * * *", catch_up="latest")
@dramatiq.actor(time_limit=BACKUP_TIME_LIMIT, max_retries=3)
def back_up(slot: str) -> None:
    """Make a backup where `config/backup.yaml` says, as `python main.py backup create` does.

    It uses no session: nobody else's writes shall wait for it.
    """
    done = create(svcs.flask.get(Settings))
    for line in done.not_included:
        logger.warning("not in the backup: %s", line)
    for path in done.vanished:
        logger.warning("vanished while the backup was made: %s", path)
    logger.info(
        "backed up %d files to %s, removed %d older ones; due %s", done.files, done.path, len(done.pruned), slot
    )
