"""What an idle queue worker of the generated service costs, and how soon it starts a job that comes by itself.

A worker for each database runs at the same time. CPU time is that of the worker's processes, without the server's.
"""

import os
import random
import statistics
import time
from pathlib import Path

import dramatiq

from benchmarks.queue.places import DATABASES, Places, broker_of, lines, show, wait_until
from tests.infrastructure.queue.workers import wait_until_empty

SECONDS = 20
SENT = 40
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(session: int) -> float:
    """CPU time of all processes of a session so far, by Linux's account."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the last parenthesis may hold anything.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # It has just ended.
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def measure(places: Places) -> None:
    """Print the table."""
    found = {name: place for name in DATABASES if (place := places.fresh(name))}
    workers = {name: places.start_service(place, "queues.py") for name, place in found.items()}
    brokers = {name: broker_of(place) for name, place in found.items()}
    sent: dict[str, list[float]] = {name: [] for name in found}

    def send(name: str) -> None:
        message = dramatiq.Message[None]("default", "stamp", (len(sent[name]),), {}, {})
        sent[name].append(time.time())
        brokers[name].enqueue(message)

    for name, place in found.items():
        send(name)
        wait_until(lambda place=place: lines(place.record), f"the worker on {name}", 30)  # type: ignore[misc]
    for broker in brokers.values():
        wait_until_empty(broker)
    before = {name: cpu_seconds(worker.pid) for name, worker in workers.items()}
    time.sleep(SECONDS)
    cpu = {name: (cpu_seconds(worker.pid) - before[name]) / SECONDS for name, worker in workers.items()}
    for _ in range(SENT):
        for name in random.sample(list(found), len(found)):
            time.sleep(random.uniform(0.2, 0.8))
            send(name)
    rows = []
    for name, place in found.items():
        wait_until(lambda place=place: len(lines(place.record)) > SENT, "all jobs", 30)  # type: ignore[misc]
        started = {int(number): float(at) for _, number, _, at in lines(place.record)}
        waits = [(started[number] - at) * 1000 for number, at in enumerate(sent[name]) if number]
        rows.append([name, f"{cpu[name]:.2%}", f"{statistics.median(waits):.0f}", f"{max(waits):.0f}"])
    header = ["", "CPU", "send to start, ms", "longest"]
    show(f"idle: {SECONDS} s without a job, then {SENT} single ones", header, rows, "CPU < 1 %, median <= 250 ms")
