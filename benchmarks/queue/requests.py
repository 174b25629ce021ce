"""How long a request takes that writes a row and sends a job, beside one that only writes the row.

gunicorn runs the generated service with three workers on SQLite, one queue worker runs the jobs, and four clients send
requests as fast as they are answered: first both kinds mixed, so that both meet the same load, then in turns of 100,
before each of which the queue is empty, so that those without a job have the database for themselves.
"""

import http.client
import random
import sqlite3
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from benchmarks.queue.places import Places, broker_of, show, wait_until
from tests.infrastructure.queue.workers import wait_until_empty
from tests.infrastructure.servers import HOST, free_port

CLIENTS = 4
# Of each kind, by each client.
REQUESTS = 1000
TURN = 100
KINDS = {"row": "/bench/row", "row and job": "/bench/job"}

Answer = tuple[str, float, int]


def answers(port: int, kinds: list[str]) -> list[Answer]:
    """Send one request after the other, on one connection: kind, seconds and status of each."""
    found = []
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as client:
        for kind in kinds:
            start = time.perf_counter()
            client.request("POST", KINDS[kind])
            response = client.getresponse()
            response.read()
            found.append((kind, time.perf_counter() - start, response.status))
    return found


def together(port: int, plans: list[list[str]]) -> list[Answer]:
    """Several clients at once, each with a list of its own."""
    with ThreadPoolExecutor(len(plans)) as pool:
        return [answer for found in pool.map(answers, [port] * len(plans), plans) for answer in found]


def is_ready(port: int) -> bool:
    """Whether the service answers."""
    with suppress(OSError), closing(http.client.HTTPConnection(HOST, port, timeout=10)) as client:
        client.request("GET", "/readyz")
        return client.getresponse().status == 200
    return False


def row(name: str, found: list[Answer], kind: str) -> tuple[list[str], float]:
    """A row of the table without its ratio, and the 99th percentile."""
    times = [seconds * 1000 for each, seconds, _ in found if each == kind]
    percentiles = statistics.quantiles(times, n=100)
    broken = sum(status != 204 for each, _, status in found if each == kind)
    return [name, kind, f"{percentiles[49]:.1f}", f"{percentiles[98]:.1f}", str(broken)], percentiles[98]


def measure(places: Places) -> None:
    """Print the table."""
    place = places.fresh("SQLite")
    assert place
    with closing(sqlite3.connect(place.database.removeprefix("sqlite:///"))) as database:
        database.execute("CREATE TABLE bench_row (id INTEGER PRIMARY KEY, note VARCHAR NOT NULL)")
    port = free_port()
    environ = {"PORT": str(port), "APP_WEB__WORKERS": "3"}
    places.start_service(place, "-m", "gunicorn", "web:app", environ=environ)
    places.start_service(place, "queues.py")
    wait_until(lambda: is_ready(port), "the service", 30)
    broker = broker_of(place)
    together(port, [list(KINDS) * 20] * CLIENTS)  # Nobody measures what the first requests load.

    plans = [random.sample(list(KINDS) * REQUESTS, len(KINDS) * REQUESTS) for _ in range(CLIENTS)]
    load = {"mixed": together(port, plans), "in turns": []}
    for _ in range(REQUESTS // TURN):
        for kind in random.sample(list(KINDS), len(KINDS)):
            wait_until_empty(broker)
            load["in turns"] += together(port, [[kind] * TURN] * CLIENTS)

    rows = []
    for name, found in load.items():
        without, base = row(name, found, "row")
        with_job, p99 = row(name, found, "row and job")
        rows += [[*without, ""], [*with_job, f"{p99 / base:.2f} x"]]
    locked = (place.folder / "log").read_text().count("database is locked")
    header = ["", "request", "p50, ms", "p99, ms", "failed", "ratio of p99"]
    show("requests: 3 gunicorn workers, 4 clients", header, rows, "p99 <= 1.5 x, 0 failed, 0 'database is locked'")
    print(f"'database is locked' in the logs: {locked}")
