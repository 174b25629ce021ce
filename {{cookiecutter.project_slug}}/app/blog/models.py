"""The tables of posts, imports and exports, and how their rows are found."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import svcs
from sqlalchemy import ForeignKey, Index, Row, Select, String, Text, func, insert, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from app.accounts import User
from database import Base, PrimaryKey, utc_now

PAGE_SIZE = 10
CHUNK_SIZE = 200
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


class Transfer:
    """What imports and exports have in common: whose it is, and how far its job has come.

    `state` is waiting, running, done, refused (the file is no good) or failed (the service is); the last three are
    final and have the time `finished`. `done` of `total` posts are dealt with.

    Numbers never come back, since files are named by them.
    """

    __table_args__: ClassVar[Any] = {"sqlite_autoincrement": True}

    id: Mapped[PrimaryKey]
    author_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    total: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(default=utc_now)
    finished: Mapped[datetime | None]

    @property
    def status(self) -> str:
        """The state in words, for its user."""
        return {"waiting": "It waits for its turn.", "running": "It is being worked on."}.get(
            self.state, "It has ended."
        )

    def finish(self, state: str) -> None:
        """Give it a state that is final."""
        self.state, self.finished = state, utc_now()


class PostImport(Transfer, Base):
    """A CSV file whose rows are to be posts, all of them or none.

    `upload` names the file on the default disk until the job takes it to the disk `batches`. `problem` says why the
    file as a whole is refused, `errors` counts what is wrong in its rows.
    """

    __tablename__ = "post_import"

    upload: Mapped[str] = mapped_column(String(32))
    errors: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None] = mapped_column(String(300))

    @property
    def batch(self) -> str:
        """The file's path on the disk `batches`."""
        return f"posts/{self.id}/posts.csv"

    @property
    def report(self) -> str:
        """The path of the list of errors on the disk `batches`, if the import is refused because of its rows."""
        return f"posts/{self.id}/errors.csv"


class PostExport(Transfer, Base):
    """A zip file of all posts of a user."""

    __tablename__ = "post_export"

    file_name: Mapped[str] = mapped_column(String(80))

    @property
    def path(self) -> str:
        """The file's path on the disk `exports`."""
        return f"posts/{self.id}/{self.file_name}"


AnyTransfer = TypeVar("AnyTransfer", bound=Transfer)


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


def count_posts(author_id: int) -> int:
    """How many posts a user has."""
    query = select(func.count()).select_from(Post).where(Post.author_id == author_id)
    return svcs.flask.get(Session).scalar(query) or 0


def each_post(author_id: int) -> Iterator[Row[int, str, str, datetime]]:
    """Number, title, body and time of every post of a user, oldest first, in any number.

    What is pending in the session is committed: on SQLite, the transaction of a job keeps all other writers waiting.
    """
    session, last = svcs.flask.get(Session), 0
    query = select(Post.id, Post.title, Post.body, Post.created).where(Post.author_id == author_id).order_by(Post.id)
    while True:
        rows = session.execute(query.where(Post.id > last).limit(CHUNK_SIZE)).all()
        session.commit()
        if not rows:
            return
        yield from rows
        last = rows[-1].id


def insert_posts(author_id: int, posts: list[dict[str, str]]) -> None:
    """Add posts of a user, each with title and body, the first of them as the oldest."""
    svcs.flask.get(Session).execute(insert(Post), [{"author_id": author_id, **post} for post in posts])


def find_transfer(kind: type[AnyTransfer], number: int, author: User) -> AnyTransfer | None:
    """A user's own import or export of that number."""
    query = select(kind).where(kind.id == _storable(number), kind.author_id == author.id)
    return svcs.flask.get(Session).scalar(query)


def lock_unfinished(kind: type[AnyTransfer], number: int) -> AnyTransfer | None:
    """The import or export of that number, locked until the session commits; None if it is finished or gone."""
    found = svcs.flask.get(Session).get(kind, number, with_for_update=True, populate_existing=True)
    return found if found and not found.finished else None


def _posts() -> Select[Post]:
    return select(Post).options(joinedload(Post.author, innerjoin=True))


def _storable(number: int) -> int:
    """The nearest number that the database can hold: an address may name any, and drivers refuse larger ones."""
    return max(0, min(number, LARGEST_NUMBER))
