"""Whether each of 1,000 slots is sent exactly once by schedulers that are killed all the time.

Real: processes that run the scheduler's own loop with its ledger and messages, SIGKILL at random moments while they
send, and the database. Not real: the clock, which goes on as soon as all jobs of an hour are sent.
"""

from benchmarks.queue.places import DATABASES, Places, show
from tests.infrastructure.schedule.chaos import chaos

JOBS, HOURS = 50, 20
SCHEDULERS = (2, 5)


def measure(places: Places) -> None:
    """Print the table."""
    header = ["", "kills", "slots", "missed", "sent twice"]
    rows = []
    for database in DATABASES:
        for count in SCHEDULERS:
            if place := places.fresh(database):
                found = chaos(place.database, count, jobs=JOBS, hours=HOURS)
                rows.append([f"{database}, {count} schedulers", *(str(found[name]) for name in header[1:])])
    show(
        f"slots: {JOBS} jobs that are due {HOURS} times", header, rows, f"{JOBS * HOURS} slots, 0 missed, 0 sent twice"
    )
