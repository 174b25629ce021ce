"""Counts of rate-limited requests, kept in the database: all processes count together, and a deploy resets nothing."""

from sqlalchemy import Engine, String, and_, case, delete, not_
from sqlalchemy.orm import Mapped, mapped_column

from database.base import Base, database_time, insert

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


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


def hit(engine: Engine, limit: str, key: str) -> float:
    """Count a hit in the window that began with the first one. It stays counted when its request is rolled back.

    Args:
        engine: the database, of which this takes a connection of its own.
        limit: a text such as "20 per hour" or "5 per 10 minutes", as the settings have it.
        key: what is counted, at most 200 characters.

    Returns:
        How many seconds are left until the window ends if there were more hits than `limit` allows, otherwise 0.
    """
    most, _, *number, unit = limit.split()
    window = int(number[0] if number else 1) * SECONDS[unit.removesuffix("s")]
    new = insert(engine.dialect, RateLimit).values(key=f"{key} {limit}", hits=1, started=NOW, expires=NOW + window)
    old = {"hits": RateLimit.hits + 1, "started": RateLimit.started, "expires": RateLimit.expires}
    kept = {name: case((RUNS, value), else_=new.excluded[name]) for name, value in old.items()}
    counted = new.on_conflict_do_update(index_elements=["key"], set_=kept)
    with engine.begin() as connection:
        hits, left = connection.execute(counted.returning(RateLimit.hits, RateLimit.expires - NOW)).one()
    return float(left) if hits > int(most) else 0.0
