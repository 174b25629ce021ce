"""The tables of the API: tokens, and answers that a repeated request gets again."""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

import svcs
from sqlalchemy import JSON, ForeignKey, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.accounts import User
from config import Settings
from database import Base, PrimaryKey, utc_now


class Token(Base):
    """What a program shows instead of a password. It is random, so that a plain hash of it keeps it as safe.

    `scope` is read or write; one that writes reads as well.
    """

    __tablename__ = "api_token"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  (SQLAlchemy only reads it)

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(60))
    scope: Mapped[str] = mapped_column(String(10))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    ends: Mapped[datetime]


class Answer(Base):
    """The answer to a POST with an `Idempotency-Key`; `digest` is that of the request."""

    __tablename__ = "api_answer"

    owner_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(default=utc_now)


def new_token(owner: User, name: str, scope: str, days: int) -> tuple[Token, str]:
    """A token and its text, which begins with the service's name, so that one that was lost is recognised."""
    text = f"{svcs.flask.get(Settings).app.slug}_{secrets.token_urlsafe(32)}"
    token = Token(owner_id=owner.id, name=name, scope=scope, hash=hash_of(text), ends=utc_now() + timedelta(days=days))
    session = svcs.flask.get(Session)
    session.add(token)
    session.flush()
    return token, text


def tokens_of(user: User) -> list[Token]:
    """Those that have not ended."""
    query = select(Token).where(Token.owner_id == user.id, Token.ends > utc_now()).order_by(Token.id)
    return list(svcs.flask.get(Session).scalars(query))


def hash_of(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()
