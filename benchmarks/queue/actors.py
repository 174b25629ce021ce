"""The jobs behind a bare broker: Dramatiq's own on Redis, or the project's, with Dramatiq's default middleware.

`dramatiq benchmarks.queue.actors` works; `python -m benchmarks.queue.actors send ACTOR COUNT` prints how many seconds
sending took.
"""

import os
import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.queue import jobs
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
noop = dramatiq.actor(jobs.noop)


def main() -> None:
    """Send."""
    actor = broker.get_actor(sys.argv[2])
    start = time.perf_counter()
    for _ in range(int(sys.argv[3])):
        actor.send()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
