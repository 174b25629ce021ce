"""The nightly clean-up of the API."""

from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.api.models import Answer, Token
from database import utc_now
from database.schedule import scheduled


@scheduled("45 3 * * *")
@dramatiq.actor
def remove_ended(_slot: str) -> None:
    """Delete tokens that have ended, and answers that are a day old."""
    session = svcs.flask.get(Session)
    session.execute(delete(Token).where(Token.ends < utc_now()))
    session.execute(delete(Answer).where(Answer.created < utc_now() - timedelta(days=1)))
