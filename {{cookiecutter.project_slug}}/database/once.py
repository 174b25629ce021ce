"""Work that must be done once, in jobs that may run more than once."""

from datetime import datetime, timedelta

from sqlalchemy import String, delete
from sqlalchemy.orm import Mapped, Session, mapped_column

from database.base import Base, insert_new, utc_now

REMEMBERED = timedelta(days=30)


class DoneOnce(Base):
    """A key that was taken."""

    __tablename__ = "done_once"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    done: Mapped[datetime] = mapped_column(default=utc_now, index=True)


def once(key: str, session: Session) -> bool:
    """Whether this is the first time for `key`; False if a transaction that took it was committed before.

    The key is taken with the session's transaction: a job that fails gives it back, and what the job writes to the
    database is there if and only if the key is. What it does elsewhere, such as sending mail, can still happen twice
    if its worker dies between that and the commit. Keys are remembered for 30 days.

    Args:
        key: up to 200 characters; name the work and what it is for: `f"welcome {user_id}"`.
        session: the job's own session.
    """
    return insert_new(session, DoneOnce(key=key))


def forget_old(session: Session) -> int:
    """Delete keys that are no longer needed; returns how many."""
    old = delete(DoneOnce).where(DoneOnce.done < utc_now() - REMEMBERED)
    return len(session.scalars(old.returning(DoneOnce.key)).all())
