"""What the jobs do: the same functions behind every queue."""

import itertools
import os
import time

JOBS = 2000

ended = itertools.count(1)


def noop() -> None:
    """Nothing; only the first and the last of a process that runs `JOBS` of them write down when they ended."""
    if next(ended) in (1, JOBS):
        write("ended")


def nothing(_row: int) -> None:
    """Nothing at all."""


def stamp(number: int) -> None:
    """Write down when it started."""
    write(f"start {number}")


def write(event: str) -> None:
    """Add a line, in one step, so that processes do not mix theirs: what happened, in which process, and when."""
    descriptor = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{event} {os.getpid()} {time.time()}\n".encode())
    os.close(descriptor)
