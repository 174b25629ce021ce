"""How long a claim of 8 messages takes beside a million others, and an idle worker's look at a queue.

The tables differ only in the number of rows, and are asked in turns. What is claimed is given back before the next
claim, outside the clock. PostgreSQL's table was vacuumed and analysed after it was filled, as its own daemon would.
"""

import random
import statistics
import time
from typing import Any

import dramatiq
from sqlalchemy import text

from benchmarks.queue.places import DATABASES, Place, Places, broker_of, show
from database import connect

CLAIM = 8
ROUNDS = 300
FEW, MANY = 1_000, 1_000_000
# What is in a table: messages to be claimed now, and delayed ones.
FILLINGS = {"few": (FEW, 0), "many": (MANY, 0), "delayed": (FEW, MANY), "idle": (0, FEW), "idle, delayed": (0, MANY)}
FILL = text("""
    INSERT INTO queue_message (queue, actor, message_id, priority, dead, due, wait, returns, payload)
    WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :rows)
    SELECT 'default', 'noop', 'message', 0, :dead, :due + number / 1000.0, 1e9, 0, :payload FROM numbers
""")


def fill(place: Place, ready: int, delayed: int) -> None:
    """Ready messages were due a while ago, delayed ones will be in an hour."""
    payload = dramatiq.Message[None]("default", "noop", (), {}, {}).encode()
    engine = connect(place.database)
    with engine.begin() as connection:
        for rows, due in ((ready, time.time() - 3600), (delayed, time.time() + 3600)):
            if rows:
                connection.execute(FILL, {"rows": rows, "dead": False, "due": due, "payload": payload})
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as autocommit:
            autocommit.execute(text("VACUUM ANALYZE queue_message"))
    engine.dispose()


def claim(consumer: Any, expected: int) -> float:
    """Seconds of one claim, which is undone."""
    start = time.perf_counter()
    consumer._claim(CLAIM)
    seconds = time.perf_counter() - start
    assert len(consumer.claimed) == expected
    consumer.close()
    consumer.claimed_at = 0  # The next one claims no more than this.
    return seconds


def measure(places: Places) -> None:
    """Print the table."""
    rows = []
    for database in DATABASES:
        consumers: dict[str, Any] = {}
        for name, filling in FILLINGS.items():
            if place := places.fresh(database):
                fill(place, *filling)
                consumers[name] = broker_of(place).consume("default")
                claim(consumers[name], min(filling[0], CLAIM))  # The first one looks whether the clock was right.
        if not consumers:
            continue
        times: dict[str, list[float]] = {name: [] for name in consumers}
        for _ in range(ROUNDS):
            for name in random.sample(list(consumers), len(consumers)):
                times[name].append(claim(consumers[name], min(FILLINGS[name][0], CLAIM)))
        medians = {name: statistics.median(values) for name, values in times.items()}
        for what, few, many in (
            ("claim: 1,000 ready, 1,000,000 ready", "few", "many"),
            ("claim: 1,000 ready, 1,000,000 delayed beside them", "few", "delayed"),
            ("idle look: 1,000 delayed, 1,000,000 delayed", "idle", "idle, delayed"),
        ):
            one, other = medians[few], medians[many]
            rows.append([f"{database}, {what}", f"{one * 1e6:.0f}", f"{other * 1e6:.0f}", f"{other / one:.2f} x"])
    show(f"claim of {CLAIM}: medians of {ROUNDS}", ["", "few, us", "many, us", "ratio"], rows, "<= 1.5 x")
