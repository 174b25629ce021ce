"""The user table."""

from datetime import datetime

import svcs
from flask_login import UserMixin
from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.extensions import login_manager
from database import Base, PrimaryKey, utc_now


class User(UserMixin, Base):
    """Somebody with an account.

    `username` is lower case and unique. `email` is neither verified nor unique: a unique one would let anybody block
    somebody else's address, and would tell who has an account.
    """

    __tablename__ = "user_account"

    id: Mapped[PrimaryKey]
    username: Mapped[str] = mapped_column(String(30), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    password_hash: Mapped[str] = mapped_column(String(200))
    created: Mapped[datetime] = mapped_column(default=utc_now)


def find_user(username: str) -> User | None:
    """The user of that name, in any case."""
    return svcs.flask.get(Session).scalar(select(User).where(User.username == username.lower()))


@login_manager.user_loader
def load_user(user_id: str) -> User | None:
    """The user that a session belongs to; None if the account is gone."""
    return svcs.flask.get(Session).get(User, int(user_id)) if user_id.isdecimal() else None
