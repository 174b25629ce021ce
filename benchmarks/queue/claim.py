"""How long a claim of 8 messages takes beside a million others, half of them delayed.

The tables differ only in the number of rows, and are asked in turns. What is claimed is given back before the next
claim, outside the clock. PostgreSQL's table was vacuumed and analysed after it was filled, as its own daemon would.
"""

import time
from collections.abc import Iterator
from typing import Any

import dramatiq
from sqlalchemy import text

from benchmarks.queue.places import Place, Places, broker_of, on_each
from benchmarks.rows import Row, rounds
from database import connect

CLAIM = 8
ROUNDS = 300
FEW, MANY = 1_000, 1_000_000
ROWS_OF = {
    name: Row(f"Claim beside {MANY:,} waiting jobs, {name}", "µs", 1.5, beside=f"that beside {FEW:,}")
    for name in ("SQLite", "PostgreSQL")
}
ROWS = tuple(ROWS_OF.values())
FILL = text("""
    INSERT INTO queue_message (queue, actor, message_id, priority, dead, due, wait, returns, payload)
    WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :rows)
    SELECT 'default', 'noop', 'message', 0, :dead, :due + number / 1000.0, 1e9, 0, :payload FROM numbers
""")


def fill(place: Place, rows: int) -> None:
    """Half were due a while ago, the others will be in an hour."""
    payload = dramatiq.Message[None]("default", "noop", (), {}, {}).encode()
    engine = connect(place.database, statement_timeout=600)
    with engine.begin() as connection:
        for due in (time.time() - 3600, time.time() + 3600):
            connection.execute(FILL, {"rows": rows // 2, "dead": False, "due": due, "payload": payload})
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as autocommit:
            autocommit.execute(text("VACUUM ANALYZE queue_message"))
    engine.dispose()


def claim(consumer: Any) -> float:
    """Microseconds of one claim, which is undone."""
    start = time.perf_counter()
    consumer._claim(CLAIM)
    seconds = time.perf_counter() - start
    assert len(consumer.claimed) == CLAIM
    consumer.close()
    consumer.claimed_at = 0  # The next one claims no more than this.
    return seconds * 1e6


def measure_on(places: Places, database: str) -> Row:
    """A full table and a nearly empty one, in turns."""
    consumers: list[Any] = []
    times: list[list[float]] = [[], []]
    for rows in (MANY, FEW):
        place = places.fresh(database)
        fill(place, rows)
        consumers.append(broker_of(place).consume("default"))
        claim(consumers[-1])  # The first one looks whether the clock was right.
    for number in rounds(ROUNDS, f"claims, {database}"):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(claim(consumers[which]))
    return ROWS_OF[database].compared(*times)


def measure() -> Iterator[Row]:
    """On each database."""
    return on_each(ROWS_OF, measure_on)
