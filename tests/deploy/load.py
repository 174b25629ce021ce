"""Requests without a pause, and what became of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from deploy.service import Service

# Seconds that a request may take; it counts as failed then.
LONGEST = 60
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass
class Load:
    """What `wrk` has seen, once it has ended.

    Attributes:
        requests: how many were answered.
        failed: answers other than 2xx or 3xx, and connections that were refused, closed, or took too long.
        p99: milliseconds within which 99 of 100 were answered.
        longest: milliseconds that the slowest took.
        output: all that it has printed.
    """

    requests: int = 0
    failed: int = 0
    p99: float = 0
    longest: float = 0
    output: str = field(default="", repr=False)

    def read(self, output: str) -> None:
        """Take the figures from what wrk has printed."""
        self.output = output
        found = re.search(r"(\d+) requests in", output)
        assert found, output
        self.requests = int(found[1])
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        self.failed = sum(map(int, errors.groups() if errors else ())) + int(statuses[1] if statuses else 0)
        self.p99 = _milliseconds(output, r" 99%\s+")
        self.longest = _milliseconds(output, r"Latency\s+\S+\s+\S+\s+")

    def __str__(self) -> str:
        """A line for people."""
        return f"{self.requests} requests, {self.failed} failed, p99 {self.p99:.0f} ms, longest {self.longest:.0f} ms"


def _milliseconds(output: str, before: str) -> float:
    found = re.search(rf"{before}([\d.]+)(us|ms|s|m)\b", output)
    assert found, output
    return float(found[1]) * UNITS[found[2]]


@contextmanager
def load(service: Service, connections: int, path: str = "/", host: str | None = None) -> Iterator[Load]:
    """Ask a service for a page, on each connection as soon as the last answer is there, as long as the block runs.

    The result is complete behind the block.
    """
    machine, result = service.machine, Load()
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", "3600s", "--latency"]
    command += ["--timeout", f"{LONGEST}s", "--header", f"Host: {host or service.host}"]
    command += ["--header", "X-Forwarded-Proto: https", f"http://127.0.0.1:80{path}"]
    wrk = machine.spawn(*command, timeout=3600)
    try:
        yield result
    finally:
        machine.run("pkill", "-INT", "-x", "wrk")
        output = wrk.communicate(timeout=LONGEST)[0]
    result.read(output)
