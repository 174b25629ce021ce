"""Jobs that keep the service tidy."""

import logging
from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy.orm import Session

from config import Settings
from database import once, queue_statistics, rate_limits, schedule, utc_now
from database.schedule import scheduled

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
