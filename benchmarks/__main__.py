"""`python -m benchmarks [PART …]`: measures all or some, and writes docs/benchmarks/results.{json,md,svg}.

Exits with 1 if a promise is missed or could not be measured. Parts that are not asked for keep their last figures, each
with its own date and commit.
"""

import importlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from benchmarks import PROJECT, TEMPLATE
from benchmarks.results import Results
from benchmarks.rows import NotMeasuredError, Row

PARTS = (
    "generation",
    "web",
    "queue.throughput",
    "queue.claim",
    "queue.chaos",
    "storage",
    "restores",
    "deploy",
    "project",
)


def here_and_now() -> str:
    """Date, commit, and what machine this is."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=TEMPLATE, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--", ".", ":!docs/benchmarks") else ""
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    machine = f"{os.cpu_count()} cores, {memory:.0f} GB of memory, {platform.system()} {platform.release()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}{changed}, {machine}"


def rows_of(part: str) -> Iterator[Row]:
    """All rows of a part. If something goes wrong, those that were not measured yet say so."""
    print(part, file=sys.stderr)
    start = time.monotonic()
    module = importlib.import_module(f"benchmarks.{part}")
    left = {row.what: row for row in module.ROWS}
    why = ""
    try:
        for row in module.measure():
            del left[row.what]
            yield row
    except NotMeasuredError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001  (the others are measured, whatever this is)
        # What it says may hold paths of this machine, so that it is not for the file.
        why = f"it failed: {type(error).__name__}"
        print("", *str(error).splitlines()[-5:], sep="\n  ", file=sys.stderr)
    yield from (row.without(why) for row in left.values())
    print(f"  {time.monotonic() - start:.0f} s", file=sys.stderr)


def main() -> None:
    """Measure, write, and print the table."""
    wanted = sys.argv[1:] or PARTS
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"{min(unknown)}: unknown; expected some of {', '.join(PARTS)}")
    results, measured = Results(TEMPLATE / "docs/benchmarks", PARTS), here_and_now()
    for part in wanted:
        results.renew(part, [replace(row, measured=row.measured or measured) for row in rows_of(part)])
    print(results.table())
    bad = [row for part in wanted for row in results.parts[part] if row.verdict != "met"]
    sys.exit("\n".join(f"{row.verdict}: {row.what}{row.why and ': '}{row.why}" for row in bad) or None)


if __name__ == "__main__":
    # Parts of the project are measured where they are, some with what the tests have for that.
    sys.path += [str(PROJECT), str(TEMPLATE / "tests")]
    sys.dont_write_bytecode = True
    # SIGTERM ends what was started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
