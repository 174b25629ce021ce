"""The user table."""

import re
import secrets
import time
from datetime import datetime

import svcs
from flask import session
from flask_login import UserMixin
from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.extensions import login_manager
from config import Settings
from database import Base, PrimaryKey, utc_now


def new_session_key() -> str:
    """A random name for a user's sessions, of 32 bytes."""
    return secrets.token_urlsafe(32)


class User(UserMixin, Base):
    """A person with an account.

    `username` is unique and in lower case. `email` is neither verified nor unique: a unique one would let people block
    each other's addresses, and would reveal who has an account.

    `session_key` is what session cookies hold. Unlike a row's number it is never used again, so the cookie of a deleted
    account opens no other one; a new key ends all of the user's sessions.

    `is_admin` opens the page /ops; `python main.py user admin NAME` sets it.

    `picture` is a path on the disk `media`. `picture_upload` names the newest upload until a job has made it the
    picture.
    """

    __tablename__ = "user_account"

    id: Mapped[PrimaryKey]
    username: Mapped[str] = mapped_column(String(30), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    password_hash: Mapped[str] = mapped_column(String(200))
    session_key: Mapped[str] = mapped_column(String(43), unique=True, default=new_session_key)
    created: Mapped[datetime] = mapped_column(default=utc_now)
    is_admin: Mapped[bool] = mapped_column(default=False)
    picture: Mapped[str | None] = mapped_column(String(80))
    picture_upload: Mapped[str | None] = mapped_column(String(40))

    def get_id(self) -> str:
        return self.session_key

    @property
    def initials(self) -> str:
        """One or two letters, shown where there is no picture."""
        return "".join(part[0] for part in re.split("[-_]+", self.username) if part)[:2].upper()


def find_user(username: str) -> User | None:
    return svcs.flask.get(Session).scalar(select(User).where(User.username == username.lower()))


@login_manager.user_loader
def load_user(session_key: str) -> User | None:
    """The user whose session has that key; None if the session is over, or the account is gone or has ended it."""
    if session.get("since", 0) + svcs.flask.get(Settings).security.session_lifetime < time.time():
        return None  # However often it was used.
    return svcs.flask.get(Session).scalar(select(User).where(User.session_key == session_key))
