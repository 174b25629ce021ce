"""Jobs that keep the service tidy."""

import logging

import dramatiq
import svcs
from sqlalchemy.orm import Session

from database.rate_limits import remove_expired
from database.schedule import scheduled

logger = logging.getLogger(__name__)


@scheduled("30 3 * * *", catch_up="latest")
@dramatiq.actor
def remove_expired_rate_limits(slot: str) -> None:
    """Delete counters whose window has ended. `slot` is the time it was due, ISO 8601 in UTC."""
    logger.info("removed %d rate limits, due %s", remove_expired(svcs.flask.get(Session)), slot)
