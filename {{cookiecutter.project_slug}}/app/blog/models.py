"""The post table, and how posts are found."""

from dataclasses import dataclass
from datetime import datetime

import svcs
from sqlalchemy import ForeignKey, Index, Select, String, Text, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from app.accounts import User
from database import Base, PrimaryKey, utc_now

PAGE_SIZE = 10
LARGEST_NUMBER = 2**63 - 1


class Post(Base):
    """Something a user wrote. Newer posts have higher numbers."""

    __tablename__ = "post"
    __table_args__ = (Index("ix_post_author_id_id", "author_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[PrimaryKey]
    author_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(default=utc_now)
    updated: Mapped[datetime | None]

    author: Mapped[User] = relationship(lazy="raise")


@dataclass(frozen=True)
class PostPage:
    """Some posts, newest first, and the numbers from which the pages beside them go on."""

    posts: list[Post]
    newer: int | None
    older: int | None


def page_of_posts(
    *, author: User | None = None, before: int | None = None, after: int | None = None, size: int = PAGE_SIZE
) -> PostPage:
    """The newest posts, or those next to a known one: as fast at the millionth post as at the first.

    Args:
        author: only posts of this user.
        before: only posts older than the one with this number.
        after: only posts newer than the one with this number; wins over `before`.
        size: posts on a page.
    """
    query = _posts()
    if author is not None:
        query = query.where(Post.author_id == author.id)
    if after is not None:
        query = query.where(Post.id > _storable(after)).order_by(Post.id)
    else:
        query = query.order_by(Post.id.desc())
        if before is not None:
            query = query.where(Post.id < _storable(before))
    found = list(svcs.flask.get(Session).scalars(query.limit(size + 1)))
    more, posts = len(found) > size, found[:size]
    if after is not None:
        posts.reverse()
    has_newer, has_older = (more, True) if after is not None else (before is not None, more)
    return PostPage(posts, posts[0].id if posts and has_newer else None, posts[-1].id if posts and has_older else None)


def posts_by(user: User) -> PostPage:
    """A user's latest posts, for the profile."""
    return page_of_posts(author=user)


def find_post(post_id: int) -> Post | None:
    """The post of that number, with its author."""
    return svcs.flask.get(Session).scalar(_posts().where(Post.id == _storable(post_id)))


def _posts() -> Select[Post]:
    return select(Post).options(joinedload(Post.author, innerjoin=True))


def _storable(number: int) -> int:
    """The nearest number that the database can hold: an address may name any, and drivers refuse larger ones."""
    return max(0, min(number, LARGEST_NUMBER))
