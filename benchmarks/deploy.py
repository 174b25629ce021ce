"""What becomes of requests while releases are switched, on a machine of its own.

The machine's nginx is asked for its front page without a pause, on 12 connections, while releases are deployed and
rolled back. The slowest request is judged where nothing but a switch goes on, a rollback, beside a quiet time before.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.load import load
from deploy.machine import running_machine, what_is_missing
from deploy.service import Service, installed

from benchmarks.rows import NotMeasuredError, Row, rounds

CONNECTIONS = 12
SWITCHES = 7
REQUESTS = 100_000
# Seconds.
QUIET = 3.0
# Milliseconds, beside twice the p99 of quiet times.
PAUSE = 100.0

SLOWEST = Row("Slowest request while a release is switched", "ms", 1, beside="the limit, 2 x p99 + 100 ms")
FAILED = Row(f"Failed of {REQUESTS:,} requests beside switches", "failed", 0)
ROWS = (SLOWEST, FAILED)


def measure() -> Iterator[Row]:
    """Deploy and roll back again and again."""
    if reason := what_is_missing():
        raise NotMeasuredError(reason)
    loads, slowest, allowed = [], [], []
    with running_machine() as machine, TemporaryDirectory() as folder:
        service, _ = installed(machine, Path(folder))
        for _ in rounds(SWITCHES, "switches"):
            with load(service, CONNECTIONS) as deployment:
                run(service, "deploy", service.artifact("second"))
            with load(service, CONNECTIONS) as quiet:
                time.sleep(QUIET)
            with load(service, CONNECTIONS) as switch:
                run(service, "rollback")
            loads += [deployment, quiet, switch]
            slowest.append(switch.longest)
            allowed.append(2 * quiet.p99 + PAUSE)
        while sum(each.requests for each in loads) < REQUESTS:
            with load(service, CONNECTIONS) as deployment:
                run(service, "deploy", service.artifact("second"))
            loads.append(deployment)
    yield SLOWEST.compared(slowest, allowed)
    yield FAILED.found(sum(each.failed for each in loads))


def run(service: Service, *words: str) -> None:
    """Run a command of the tool, which has to succeed."""
    done = service.tool(*words)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: exit {done.returncode}: {done.stdout}{done.stderr}")
