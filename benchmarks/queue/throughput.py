"""How many jobs that do nothing are processed a second, beside Dramatiq on Redis.

All jobs are sent before a worker starts: one process with four threads. The clock runs in the worker, from the end of
the first job to the end of the last one.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import TEMPLATE
from benchmarks.projects import run
from benchmarks.queue import JOBS
from benchmarks.queue.places import Place, Places, missing
from benchmarks.rows import NotMeasuredError, Row, rounds
from tests.infrastructure.queue.workers import eventually

ROUNDS = 7
STOCK = "Dramatiq + Redis"
WORKER = ("-m", "dramatiq", "benchmarks.queue.actors", "--processes", "1", "--threads", "4")
ROWS_OF = {
    name: Row(f"Jobs that do nothing, on {name}", "jobs/s", goal, beside=STOCK, higher=True)
    for name, goal in {"SQLite": 2, "PostgreSQL": 1.5, "Redis": 0.95}.items()
}
ROWS = tuple(ROWS_OF.values())


def rate(place: Place, environ: dict[str, str]) -> float:
    """Send all, then process all: how many a second."""
    environ = place.environment | environ
    run(TEMPLATE, sys.executable, "-m", "benchmarks.queue.actors", environ=environ)
    place.record.touch()
    with (place.folder / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, *WORKER], cwd=TEMPLATE, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        eventually(lambda: place.record.read_bytes().count(b"\n") == 2 or worker.poll() is not None)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    first, last = map(float, place.record.read_text().split())
    return (JOBS - 1) / (last - first)


def measure() -> Iterator[Row]:
    """In turns, each in an empty queue of its own."""
    if reason := missing("Redis"):
        raise NotMeasuredError(reason)
    rates: dict[str, list[float]] = {name: [] for name in (STOCK, *ROWS_OF) if not missing(name)}
    with ExitStack() as stack:
        places = Places(stack)
        for _ in rounds(ROUNDS, f"{JOBS:,} jobs each"):
            for name, found in rates.items():
                is_stock = name == STOCK
                found.append(rate(places.fresh("Redis" if is_stock else name), {"STOCK": "1"} if is_stock else {}))
    for name, row in ROWS_OF.items():
        yield row.compared(rates[name], rates[STOCK]) if name in rates else row.without(missing(name))
