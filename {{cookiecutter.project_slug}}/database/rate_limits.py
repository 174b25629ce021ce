"""Counts of rate-limited requests, kept in the database so that all processes count together."""

import time

from limits.storage import Storage
from sqlalchemy import Engine, String, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from database.base import Base
from database.engine import sessions


class RateLimit(Base):
    """Hits of one key in its window. `expires` is in seconds since the epoch."""

    __tablename__ = "rate_limit"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    hits: Mapped[int]
    expires: Mapped[float] = mapped_column(index=True)


class DatabaseStorage(Storage):
    """Fixed windows in `rate_limit`, for Flask-Limiter as `database://`.

    Each count is a transaction of its own, since a request that is rolled back has been made all the same.
    It must therefore run before the request's own session writes; SQLite has one writer at a time.
    """

    STORAGE_SCHEME = ["database"]  # noqa: RUF012  (typed by the base class)

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, *, engine: Engine) -> None:
        super().__init__(uri, wrap_exceptions)
        self.transaction = sessions(engine)
        self.reading = sessions(engine, read_only=True)
        self.insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a failing database raises."""
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add hits to a key, which starts anew when its window of `expiry` seconds has ended."""
        now = time.time()
        new = self.insert(RateLimit).values(key=key, hits=amount, expires=now + expiry)
        over = RateLimit.expires <= now
        counted = new.on_conflict_do_update(
            index_elements=[RateLimit.key],
            set_={
                "hits": case((over, new.excluded.hits), else_=RateLimit.hits + amount),
                "expires": case((over, new.excluded.expires), else_=RateLimit.expires),
            },
        ).returning(RateLimit.hits)
        with self.transaction.begin() as session:
            return session.scalars(counted).one()

    def get(self, key: str) -> int:
        """Hits in the running window."""
        query = select(RateLimit.hits).where(RateLimit.key == key, RateLimit.expires > time.time())
        with self.reading() as session:
            return session.scalar(query) or 0

    def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch; now if none runs."""
        now = time.time()
        query = select(RateLimit.expires).where(RateLimit.key == key, RateLimit.expires > now)
        with self.reading() as session:
            return session.scalar(query) or now

    def check(self) -> bool:
        """Whether the table can be read."""
        with self.reading() as session:
            session.execute(select(RateLimit.key).limit(1))
        return True

    def reset(self) -> int:
        """Forget all counts."""
        with self.transaction.begin() as session:
            return len(session.scalars(delete(RateLimit).returning(RateLimit.key)).all())

    def clear(self, key: str) -> None:
        """Forget one key's count."""
        with self.transaction.begin() as session:
            session.execute(delete(RateLimit).where(RateLimit.key == key))


def remove_expired(session: Session) -> int:
    """Delete windows that have ended; returns how many."""
    expired = delete(RateLimit).where(RateLimit.expires <= time.time())
    return len(session.scalars(expired.returning(RateLimit.key)).all())
