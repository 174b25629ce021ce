"""Counts of rate-limited requests, kept in the database: all processes count together, and a deploy resets nothing."""

from limits.storage import Storage
from sqlalchemy import Engine, Executable, String, and_, case, delete, exc, not_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from database.base import Base, database_time, utc_now


class RateLimit(Base):
    """Hits of a key from `started` to `expires`, in seconds since the epoch. A window of the future has expired."""

    __tablename__ = "rate_limit"
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    hits: Mapped[int]
    started: Mapped[float]
    expires: Mapped[float]


NOW = database_time()
RUNS = and_(RateLimit.started <= NOW, RateLimit.expires > NOW)
REMOVE_EXPIRED = delete(RateLimit).where(not_(RUNS))


class DatabaseStorage(Storage):
    """Fixed windows, for Flask-Limiter as `database://`. A hit stays counted when its request is rolled back."""

    STORAGE_SCHEME = ["database"]  # noqa: RUF012  (typed by the base class)
    base_exceptions = exc.SQLAlchemyError

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, *, engine: Engine) -> None:
        super().__init__(uri, wrap_exceptions)
        self.engine = engine

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        dialect = sqlite if self.engine.dialect.name == "sqlite" else postgresql
        new = dialect.insert(RateLimit).values(key=key, hits=amount, started=NOW, expires=NOW + expiry)
        old = {"hits": RateLimit.hits + amount, "started": RateLimit.started, "expires": RateLimit.expires}
        kept = {name: case((RUNS, value), else_=new.excluded[name]) for name, value in old.items()}
        return int(self._number(new.on_conflict_do_update(index_elements=["key"], set_=kept).returning(RateLimit.hits)))

    def get(self, key: str) -> int:
        return int(self._number(select(RateLimit.hits).where(RateLimit.key == key, RUNS)))

    def get_expiry(self, key: str) -> float:
        return self._number(select(RateLimit.expires).where(RateLimit.key == key, RUNS)) or utc_now().timestamp()

    def check(self) -> bool:
        return self.get("") == 0

    def reset(self) -> None:
        self._number(delete(RateLimit).returning(RateLimit.hits))

    def clear(self, key: str) -> None:
        self._number(delete(RateLimit).where(RateLimit.key == key).returning(RateLimit.hits))

    def _number(self, statement: Executable) -> float:
        with self.engine.begin() as connection:
            return float(connection.scalar(statement) or 0)
