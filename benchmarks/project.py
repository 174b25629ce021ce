"""What the project's own commands cost, and how long the template's tests took when they last passed.

A project's environment is made as `make dev` makes it, by uv. The template's tests take too long to run here: `make
test` writes down how long it took, and of which commit.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import TEMPLATE
from benchmarks.projects import bake, processor_seconds, run
from benchmarks.rows import Row, rounds

ROUNDS = 3
RECORD = TEMPLATE / "build/test-seconds"

SIZE = Row(".venv of a project", "MB", 260)
TEST = Row("make test in a project", "s of CPU", 55)
CI = Row("make ci in a project", "s of CPU", 110)
TEMPLATE_TEST = Row("make test of the template", "minutes", 12)
ROWS = (SIZE, TEST, CI, TEMPLATE_TEST)


def measure() -> Iterator[Row]:
    """The whole gate runs once: it takes a minute."""
    with tempfile.TemporaryDirectory() as folder:
        project, make = bake(Path(folder)), ("make", f"UV={TEMPLATE}/.venv/bin/uv")
        run(project, *make, ".venv/ready")
        # With the bytecode of what is used.
        test = [processor_seconds(project, *make, "test") for _ in rounds(ROUNDS, "make test")]
        ci = [processor_seconds(project, *make, "ci") for _ in rounds(1, "make ci")]
        yield SIZE.found(float(run(project, "du", "-sm", ".venv").split()[0]))
    yield TEST.found(*test)
    yield CI.found(*ci)
    if not RECORD.exists():
        yield TEMPLATE_TEST.without("takes too long to run here: run `make test` before")
        return
    seconds, commit = RECORD.read_text().split()
    day = datetime.fromtimestamp(RECORD.stat().st_mtime, UTC)
    yield replace(TEMPLATE_TEST.found(float(seconds) / 60), measured=f"{day:%Y-%m-%d}, commit {commit}, by `make test`")
