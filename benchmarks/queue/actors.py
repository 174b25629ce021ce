"""A job behind a bare broker: Dramatiq's own on Redis, or the project's, with Dramatiq's default middleware.

`dramatiq benchmarks.queue.actors` works; `python -m benchmarks.queue.actors` sends.
"""

import itertools
import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.queue import JOBS
from database import connect
from database.broker import DatabaseBroker
from database.server_brokers import open_server_broker

if os.environ.get("STOCK"):
    broker = RedisBroker(url=os.environ["QUEUE_URL"])
elif url := os.environ["QUEUE_URL"]:
    broker = open_server_broker(url, lambda: None, lease=30)
else:
    broker = DatabaseBroker(connect(os.environ["BENCH_DATABASE"]), lambda: None)
dramatiq.set_broker(broker)
ended = itertools.count(1)


def noop() -> None:
    """Nothing; only the first and the last of all write down when they ended."""
    if next(ended) in (1, JOBS):
        descriptor = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{time.time()}\n".encode())
        os.close(descriptor)


actor = dramatiq.actor(noop)


def main() -> None:
    """Send."""
    for _ in range(JOBS):
        actor.send()


if __name__ == "__main__":
    main()
