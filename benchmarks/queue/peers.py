"""The same job behind other queues, with the settings that are nearest to Dramatiq's.

`python -m benchmarks.queue.peers send QUEUE COUNT` prints how many seconds sending took.
"""

import os
import sys
import time
from collections.abc import Callable

from celery import Celery
from huey import SqliteHuey
from redis import Redis
from rq import Queue

from benchmarks.queue import jobs

REDIS = os.environ["QUEUE_URL"]

huey = SqliteHuey(filename=f"{os.environ['RECORD']}.huey")
huey_noop = huey.task()(jobs.noop)

celery = Celery("peers", broker=REDIS)
# A message goes when its job is done, as with Dramatiq; by default it goes before.
celery.conf.update(task_acks_late=True, task_ignore_result=True)
celery_noop = celery.task(jobs.noop, name="noop")

rq = Queue(connection=Redis.from_url(REDIS)) if REDIS else None


def rq_noop() -> None:
    """Send one without keeping its result."""
    assert rq
    rq.enqueue(jobs.noop, result_ttl=0)


SENDERS: dict[str, Callable[[], object]] = {"huey": huey_noop, "celery": celery_noop.delay, "rq": rq_noop}


def main() -> None:
    """Send."""
    send, count = SENDERS[sys.argv[2]], int(sys.argv[3])
    start = time.perf_counter()
    for _ in range(count):
        send()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
