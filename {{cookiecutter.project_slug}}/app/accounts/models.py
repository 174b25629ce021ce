"""The user table."""

import re
from datetime import datetime

import svcs
from flask_login import UserMixin
from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from database import Base, PrimaryKey, utc_now

# What a user name consists of.
USERNAME = r"[a-z0-9][a-z0-9_-]{2,29}\Z"


class User(UserMixin, Base):
    """A person with an account.

    `username` is unique and in lower case. `email` is not unique: otherwise people could block each other's addresses,
    and ask who has an account. `email_confirmed` is when a link in a mail to it was followed, if ever.

    `is_admin` opens the page /ops; `python main.py user admin NAME` sets it.

    `picture` is a path on the disk `media`. `picture_upload` names the newest upload until a job has made it the
    picture.
    """

    __tablename__ = "user_account"

    id: Mapped[PrimaryKey]
    username: Mapped[str] = mapped_column(String(30), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    email_confirmed: Mapped[datetime | None]
    password_hash: Mapped[str] = mapped_column(String(200))
    created: Mapped[datetime] = mapped_column(default=utc_now)
    is_admin: Mapped[bool] = mapped_column(default=False)
    picture: Mapped[str | None] = mapped_column(String(80))
    picture_upload: Mapped[str | None] = mapped_column(String(40))

    @property
    def initials(self) -> str:
        """One or two letters, shown where there is no picture."""
        return "".join(part[0] for part in re.split("[-_]+", self.username) if part)[:2].upper()


def find_user(username: str) -> User | None:
    return svcs.flask.get(Session).scalar(select(User).where(User.username == username.lower()))
