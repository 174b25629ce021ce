"""The jobs behind a bare broker: Dramatiq's own on Redis, or the project's, with Dramatiq's default middleware.

`dramatiq benchmarks.queue.actors` works; `python -m benchmarks.queue.actors work` does so in a single process, and
`… send ACTOR COUNT` prints how many seconds sending took.
"""

import os
import signal
import sys
import time

import dramatiq
from database.broker_url import open_broker
from database.engine import connect
from database.messages import MessageTable
from dramatiq.brokers.redis import RedisBroker

from benchmarks.queue import jobs

if os.environ.get("STOCK"):
    broker = RedisBroker(url=os.environ["QUEUE_URL"])
else:
    messages = MessageTable(connect(os.environ["DATABASE_URL"]), lease=float(os.environ.get("LEASE", "30")))
    broker = open_broker(os.environ["QUEUE_URL"], messages, poll_interval=0.2)
dramatiq.set_broker(broker)
noop = dramatiq.actor(jobs.noop)
work = dramatiq.actor(jobs.work)


def main() -> None:
    """Work or send."""
    if sys.argv[1] == "work":
        dramatiq.Worker(broker, worker_threads=2).start()
        # Only a signal ends it.
        signal.sigwait([signal.SIGTERM])
        return
    actor, count = broker.get_actor(sys.argv[2]), int(sys.argv[3])
    arguments = [(number,) if actor is work else () for number in range(count)]
    start = time.perf_counter()
    for each in arguments:
        actor.send(*each)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
