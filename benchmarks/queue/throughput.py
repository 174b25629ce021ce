"""How many jobs that do nothing are sent and processed per second, beside Dramatiq on Redis and other libraries.

All jobs are sent before a worker starts. The clock of processing runs in the worker, from the end of the first job to
the end of the last one. "whole service" is a job as the generated service runs it: with an app context, a session, a
transaction and two log lines, which go to /dev/null.
"""

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.queue.jobs import JOBS
from benchmarks.queue.places import BROKERS, Place, Places, kill, lines, show, wait_until

RUNS = 3
THREADS = (4, 8)
STOCK = "Dramatiq, Redis"


@dataclass(frozen=True)
class Subject:
    """A queue: where its messages wait, and what starts its worker with so many threads."""

    place: str
    command: Callable[[int], list[str]]
    sender: tuple[str, str] = ("actors", "noop")
    stock: bool = False
    service: bool = False
    has_threads: bool = True


def dramatiq_command(threads: int) -> list[str]:
    """Dramatiq's own command."""
    return ["-m", "dramatiq", "benchmarks.queue.actors", "--processes", "1", "--threads", str(threads)]


def huey_command(threads: int) -> list[str]:
    """Huey has threads too, and polls an empty queue only."""
    return ["-m", "huey.bin.huey_consumer", "benchmarks.queue.peers.huey", "-w", str(threads), "-k", "thread", "-q"]


def celery_command(threads: int) -> list[str]:
    """Celery with a pool of threads; what its workers tell each other is left out."""
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    return [
        "-m",
        "celery",
        "-A",
        "benchmarks.queue.peers:celery",
        "worker",
        "-P",
        "threads",
        "-c",
        str(threads),
        *quiet,
    ]


def rq_command(_threads: int) -> list[str]:
    """RQ has no threads; its SimpleWorker does at least not start a process for each job."""
    return ["-m", "rq.cli", "worker", "--worker-class", "rq.SimpleWorker", "--quiet"]


SUBJECTS = {
    STOCK: Subject("Redis", dramatiq_command, stock=True),
    **{f"ours, {name}": Subject(name, dramatiq_command) for name in BROKERS},
    "whole service, SQLite": Subject("SQLite", lambda _: ["queues.py"], service=True),
    "Huey, SQLite": Subject("SQLite", huey_command, ("peers", "huey")),
    "Celery, Redis": Subject("Redis", celery_command, ("peers", "celery")),
    "RQ, Redis": Subject("Redis", rq_command, ("peers", "rq"), has_threads=False),
}


def run(places: Places, place: Place, subject: Subject, threads: int) -> tuple[float, float]:
    """Send all, then process all: how many of each a second."""
    environ = {"STOCK": "1"} if subject.stock else {}
    sent = places.send(place, *subject.sender, JOBS, environ)
    if subject.service:
        environ = {"APP_QUEUE__PROCESSES": "1", "APP_QUEUE__THREADS": str(threads)}
        worker = places.start_service(place, *subject.command(threads), quiet=True, environ=environ)
    else:
        environ["RQ_REDIS_URL"] = place.queue
        worker = places.start(place, *subject.command(threads), quiet=True, environ=environ)
    try:
        wait_until(lambda: len(lines(place.record)) == 2 or worker.poll() is not None, "jobs")
    finally:
        kill(worker)
    (*_, first), (*_, last) = lines(place.record)
    return sent, (JOBS - 1) / (float(last) - float(first))


def measure(places: Places) -> None:
    """Print the table."""
    sent: dict[str, list[float]] = {}
    processed: dict[tuple[str, int], list[float]] = {}
    for _ in range(RUNS):
        for threads in THREADS:
            for name, subject in random.sample(list(SUBJECTS.items()), len(SUBJECTS)):
                if (subject.has_threads or threads == THREADS[0]) and (place := places.fresh(subject.place)):
                    enqueue, process = run(places, place, subject, threads)
                    sent.setdefault(name, []).append(enqueue)
                    processed.setdefault((name, threads), []).append(process)
    rates = {key: statistics.median(values) for key, values in processed.items()}
    rows = []
    for name in SUBJECTS:
        if name in sent:
            row = [name, f"{statistics.median(sent[name]):.0f}"]
            for threads in THREADS:
                rate, stock = rates.get((name, threads), 0), rates.get((STOCK, threads), 0)
                row += [f"{rate:.0f}" if rate else "-", f"{rate / stock:.2f} x" if rate and stock else "-"]
            rows.append(row)
    header = ["jobs per second", "sent", *(cell for threads in THREADS for cell in (f"1 x {threads}", "ratio"))]
    asked = f"1 x 4: SQLite >= 2 x, PostgreSQL >= 1.5 x, Redis >= 0.95 x {STOCK}"
    show(f"throughput: {JOBS:,} jobs, medians of {RUNS} runs", header, rows, asked)
