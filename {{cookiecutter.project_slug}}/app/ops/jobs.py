"""Jobs that keep the service tidy."""

from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy.orm import Session

from config import Settings
from database import rate_limits, schedule, utc_now
from database.schedule import scheduled


@scheduled("30 3 * * *")
@dramatiq.actor
def remove_expired(slot: str) -> None:  # noqa: ARG001  (every timed job gets its slot)
    """Delete what has served its time: rate limits and old slots of schedules."""
    session = svcs.flask.get(Session)
    kept = timedelta(days=svcs.flask.get(Settings).schedule.history_days)
    session.execute(rate_limits.REMOVE_EXPIRED)
    schedule.forget_old(session, utc_now() - kept)
