"""Sessions: a row for each browser that is logged in, so that each can be seen and ended."""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

import svcs
from flask import abort, request, session
from flask_login import login_user
from sqlalchemy import ColumnElement, ForeignKey, String, delete, inspect, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.accounts.models import User
from app.extensions import login_manager
from config import Settings
from database import Base, PrimaryKey, utc_now

# In the cookie, which outlives a logout: the account that this browser was logged in to last.
KNOWN = "known"


class UserSession(Base):
    """A browser that an account is logged in on. Its cookie holds a key that is never used again, the row its hash."""

    __tablename__ = "user_session"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    browser: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(45))
    created: Mapped[datetime] = mapped_column(default=utc_now)


def start_session(user: User) -> None:
    """Log in with a fresh session that carries nothing over from before (OWASP: session fixation)."""
    key = secrets.token_urlsafe(32)
    place = {"browser": request.user_agent.string[:200], "address": (request.remote_addr or "")[:45]}
    svcs.flask.get(Session).add(UserSession(user_id=user.id, key_hash=digest(key), **place))
    session.clear()
    session.permanent = True
    session[KNOWN] = digest(user.username)
    login_user(user)
    session["_user_id"] = key  # What Flask-Login gives to `load_user`.


def lock_checked(user: User) -> None:
    """Lock an account whose password was checked; 403 if it has got another one meanwhile, as by a reset.

    A hash that this request has given it stays.
    """
    hashed = user.password_hash
    checked: str = inspect(user).committed_state.get("password_hash", hashed)
    svcs.flask.get(Session).refresh(user, with_for_update=True)
    if user.password_hash != checked:
        abort(403, "The password of this account was changed meanwhile. Please log in again.")
    user.password_hash = hashed


@login_manager.user_loader
def load_user(key: str) -> User | None:
    """The user whose session has that key; None if it was ended, or is too old, however often it was used."""
    key_fits = UserSession.key_hash == digest(key), is_current()
    return svcs.flask.get(Session).scalar(
        select(User).join(UserSession, UserSession.user_id == User.id).where(*key_fits)
    )


def end_sessions(user: User, *which: ColumnElement[bool]) -> None:
    """End all sessions of a user, or `which` of them."""
    svcs.flask.get(Session).execute(delete(UserSession).where(UserSession.user_id == user.id, *which))


def is_current() -> ColumnElement[bool]:
    """Whether a session has not had its time."""
    return UserSession.created > utc_now() - timedelta(seconds=svcs.flask.get(Settings).security.session_lifetime)


def is_this() -> ColumnElement[bool]:
    """Whether a session is that of the running request."""
    return UserSession.key_hash == digest(session.get("_user_id"))


def digest(text: object) -> str:
    return sha256(str(text).encode(errors="replace")).hexdigest()
