"""How long a claim of 8 messages takes beside a million others, and an idle worker's look at a queue.

The tables differ only in the number of rows, and are asked in turns. What is claimed is given back before the next
claim, outside the clock. "with a look" is a claim that asks for delayed messages first, as a worker's first claim does,
and then one every 0.2 s. PostgreSQL's table was vacuumed and analysed after it was filled, as its own daemon would.
"""

import random
import statistics
import time
from typing import Any

import dramatiq
from database.engine import connect
from database.messages import LATER, READY
from sqlalchemy import text

from benchmarks.queue.places import DATABASES, Place, Places, show, table_of

CLAIM = 8
ROUNDS = 300
FEW, MANY = 1_000, 1_000_000
# What is in a table: messages to be claimed now, and delayed ones.
FILLINGS = {"few": (FEW, 0), "many": (MANY, 0), "delayed": (FEW, MANY), "idle": (0, FEW), "idle, delayed": (0, MANY)}
FILL = text("""
    INSERT INTO queue_message (queue, actor, message_id, state, priority, due, deliveries, payload)
    WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :rows)
    SELECT 'default', 'noop', 'message', :state, 0, :due + number / 1000.0, 0, :payload FROM numbers
""")


def fill(place: Place, ready: int, delayed: int) -> None:
    """Ready messages were due a while ago, delayed ones will be in an hour."""
    payload = dramatiq.Message[None]("default", "noop", (), {}, {}).encode()
    engine = connect(place.database)
    with engine.begin() as connection:
        for state, rows, due in ((READY, ready, time.time() - 3600), (LATER, delayed, time.time() + 3600)):
            if rows:
                connection.execute(FILL, {"rows": rows, "state": state, "due": due, "payload": payload})
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as autocommit:
            autocommit.execute(text("VACUUM ANALYZE queue_message"))
    engine.dispose()


def claim(table: Any, expected: int, *, look: bool) -> float:
    """Seconds of one claim, which is undone."""
    table.look_after["default"] = 0 if look else float("inf")
    start = time.perf_counter()
    messages, _ = table.claim("default", CLAIM)
    seconds = time.perf_counter() - start
    assert len(messages) == expected
    table.give_back(message.row_id for message in messages)
    return seconds


def measure(places: Places) -> None:
    """Print the table."""
    rows = []
    for database in DATABASES:
        tables: dict[str, Any] = {}
        for name, filling in FILLINGS.items():
            if place := places.fresh(database):
                fill(place, *filling)
                tables[name] = table_of(place)
        if not tables:
            continue
        times: dict[tuple[str, bool], list[float]] = {}
        for _ in range(ROUNDS):
            for name in random.sample(list(tables), len(tables)):
                ready, _ = FILLINGS[name]
                for look in (True, False) if ready else (True,):
                    times.setdefault((name, look), []).append(claim(tables[name], min(ready, CLAIM), look=look))
        medians = {key: statistics.median(values) for key, values in times.items()}
        for what, few, many, look in (
            ("claim: 1,000 ready, 1,000,000 ready", "few", "many", False),
            ("claim with a look: the same", "few", "many", True),
            ("claim: 1,000 ready, 1,000 and 1,000,000 delayed", "few", "delayed", False),
            ("claim with a look: the same", "few", "delayed", True),
            ("idle look: 1,000 delayed, 1,000,000 delayed", "idle", "idle, delayed", True),
        ):
            one, other = medians[few, look], medians[many, look]
            rows.append([f"{database}, {what}", f"{one * 1e6:.0f}", f"{other * 1e6:.0f}", f"{other / one:.2f} x"])
    show(f"claim of {CLAIM}: medians of {ROUNDS}", ["", "few, us", "many, us", "ratio"], rows, "<= 1.5 x")
