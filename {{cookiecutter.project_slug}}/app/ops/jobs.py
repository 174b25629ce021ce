"""Jobs that keep the service tidy."""

import logging
from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy.orm import Session

from config import Settings
from database import rate_limits, schedule, utc_now
from database.schedule import scheduled

logger = logging.getLogger(__name__)


@scheduled("30 3 * * *")
@dramatiq.actor
def remove_expired(slot: str) -> None:
    """Delete what has served its time: rate limits and old slots of schedules."""
    session = svcs.flask.get(Session)
    kept = timedelta(days=svcs.flask.get(Settings).schedule.history_days)
    limits = rate_limits.remove_expired(session)
    schedule.forget_old(session, utc_now() - kept)
    logger.info("removed %d rate limits; due %s", limits, slot)
