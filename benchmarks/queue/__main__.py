"""`python -m benchmarks.queue [PART …]`: what is promised of the queue and the scheduler, measured."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.queue import claim, idle, kills, requests, slots, throughput
from benchmarks.queue.places import Places

PARTS: dict[str, Callable[[Places], None]] = {
    "throughput": throughput.measure,
    "claim": claim.measure,
    "kills": kills.measure,
    "slots": slots.measure,
    "requests": requests.measure,
    "idle": idle.measure,
}


def main() -> None:
    """Print a table for each part, and remove everything again, also after Ctrl-C."""
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"{min(unknown)}: unknown; expected some of {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in wanted:
        start = time.monotonic()
        with ExitStack() as stack:
            PARTS[name](Places(stack))
        print(f"{name} took {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
