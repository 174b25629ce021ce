"""The table of posts, and how posts are found."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import svcs
from sqlalchemy import ForeignKey, Index, String, Text, func, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from app.accounts import User
from app.paging import PAGE_SIZE, row_number
from database import Base, PrimaryKey, utc_now

CHUNK_SIZE = 200


class Post(Base):
    """Something that a user has written. Newer posts have higher numbers."""

    __tablename__ = "post"
    __table_args__ = (Index("ix_post_author_id_id", "author_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[PrimaryKey]
    author_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(default=utc_now)
    updated: Mapped[datetime | None]

    author: Mapped[User] = relationship(lazy="raise")


# What a list shows of each post. Models with their authors would take twice the time to read.
POSTS = select(Post.id, Post.title, Post.body, Post.created, User.username).join(Post.author)


def latest_posts(author: User) -> list[Any]:
    query = POSTS.where(Post.author_id == author.id).order_by(Post.id.desc()).limit(PAGE_SIZE)
    return list(svcs.flask.get(Session).execute(query))


def find_post(post_id: int) -> Post | None:
    query = select(Post).where(Post.id == row_number(post_id)).options(joinedload(Post.author, innerjoin=True))
    return svcs.flask.get(Session).scalar(query)


def count_posts(author_id: int) -> int:
    query = select(func.count()).select_from(Post).where(Post.author_id == author_id)
    return svcs.flask.get(Session).scalar(query) or 0


def each_post(author_id: int) -> Iterator[tuple[str, str]]:
    """Title and body of every post of a user, oldest first, of which only a few are in memory."""
    query = select(Post.id, Post.title, Post.body).where(Post.author_id == author_id).order_by(Post.id)
    last = 0
    while rows := svcs.flask.get(Session).execute(query.where(Post.id > last).limit(CHUNK_SIZE)).all():
        yield from ((row.title, row.body) for row in rows)
        last = rows[-1].id
