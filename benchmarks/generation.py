"""What generating a project takes, beside a template of one file: the floor that Cookiecutter sets.

All are whole `cookiecutter … --no-input` processes, as users start them, taken in turns.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import TEMPLATE
from benchmarks.projects import processor_seconds
from benchmarks.rows import Row, rounds

ROUNDS = 15
WHOLE = Row("Generating a project, with hooks and checks", "ms of CPU", 1.6, beside="a one-file template")
HOOKS = Row("Both hooks", "ms of CPU", 150)
ROWS = (WHOLE, HOOKS)


def one_file_template(folder: Path) -> Path:
    """A template that renders a single line."""
    project = folder / "one" / "{{cookiecutter.project_slug}}"
    project.mkdir(parents=True)
    (project / "README.md").write_text("{{cookiecutter.project_slug}}\n")
    (project.parent / "cookiecutter.json").write_text('{"project_slug": "one"}')
    return project.parent


def measure() -> Iterator[Row]:
    """In turns: a template of one file, this one, and this one without its hooks."""
    cookiecutter = (sys.executable, "-m", "cookiecutter", "--no-input")
    ours, floor, hooks = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        one = one_file_template(folder)
        for number in rounds(ROUNDS, "generations"):
            output = folder / str(number)
            floor.append(1000 * processor_seconds(folder, *cookiecutter, one, "-o", output))
            ours.append(1000 * processor_seconds(folder, *cookiecutter, TEMPLATE, "-o", output / "a"))
            without = (*cookiecutter, "--accept-hooks", "no", TEMPLATE, "-o", output / "b")
            hooks.append(ours[-1] - 1000 * processor_seconds(folder, *without))
    yield WHOLE.compared(ours, floor)
    yield HOOKS.found(*hooks)
