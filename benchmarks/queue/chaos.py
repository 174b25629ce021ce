"""What is lost, or sent twice, when workers and schedulers are killed with SIGKILL all the time, at random moments.

Four workers with two threads each, whose leases are two seconds long, and five schedulers are started again as soon as
they are killed. All is real but the schedulers' clock, which goes on as soon as all jobs of an hour are sent.
"""

import os
import sys
from collections.abc import Iterator
from unittest.mock import patch

from benchmarks.queue.places import Places, on_each
from benchmarks.rows import Row
from tests.infrastructure.queue import workers
from tests.infrastructure.schedule import chaos

DATABASES = ("SQLite", "PostgreSQL")
JOBS, KILLS, LEASE = 500, 100, 2
SCHEDULES, HOURS = 50, 20
LOST = {name: Row(f"Lost of {JOBS} jobs, {KILLS} workers killed, {name}", "lost", 0) for name in DATABASES}
SLOTS = {name: Row(f"Double or missed of {SCHEDULES * HOURS:,} slots, {name}", "wrong", 0) for name in DATABASES}
ROWS = (*LOST.values(), *SLOTS.values())


def jobs(places: Places, database: str) -> Row:
    """Jobs whose workers are killed."""
    place = places.fresh(database)
    damage = workers.chaos(workers.Place(place.database, place.folder, lease=LEASE), JOBS, KILLS, workers=4)
    return LOST[database].found(len(damage.lost) + damage.set_aside)


def slots(places: Places, database: str) -> Row:
    """Slots whose schedulers are killed."""
    found = chaos.chaos(places.fresh(database).database, 5, jobs=SCHEDULES, hours=HOURS)
    return SLOTS[database].found(found["missed"] + found["sent twice"])


def measure() -> Iterator[Row]:
    """On each database."""
    # The process that others are forked from imports all of it only if it finds it.
    # Bytecode beside the project's files would be taken for a file that no project should have.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), PYTHONDONTWRITEBYTECODE="1"):
        yield from on_each(LOST, jobs)
        yield from on_each(SLOTS, slots)
