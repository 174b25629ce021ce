"""What becomes of 500 jobs whose workers are killed 100 times with SIGKILL.

Four workers with two threads each are started again as soon as they are killed, at random moments that are spread over
all of the jobs. Leases are two seconds long.
"""

import time

from benchmarks.queue.places import BROKERS, Places, show
from tests.infrastructure.queue import workers

JOBS = 500
KILLS = 100
LEASE = 2


def measure(places: Places) -> None:
    """Print the table."""
    rows = []
    for name in BROKERS:
        if place := places.fresh(name):
            start = time.monotonic()
            queue = workers.Place(place.database, place.folder, place.queue, LEASE)
            damage = workers.chaos(queue, JOBS, KILLS, workers=4)
            counts = damage.kills, len(damage.lost), damage.set_aside, len(damage.repeated)
            rows.append([name, *map(str, counts), f"{time.monotonic() - start:.0f}"])
    header = ["", "kills", "lost", "set aside", "run again without a kill", "seconds"]
    show(f"kills: {JOBS} jobs", header, rows, f"{KILLS} kills, and 0")
