"""Generated projects, and what commands in them cost."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from baking import run_in

from benchmarks import TEMPLATE


def bake(folder: Path) -> Path:
    """A project with the default answers. The hooks only remove what was not chosen, and check the rest."""
    cookiecutter: list[str | Path] = [
        sys.executable,
        "-m",
        "cookiecutter",
        TEMPLATE,
        "--no-input",
        "--accept-hooks",
        "no",
    ]
    run(folder, *cookiecutter, "-o", folder, "project_slug=my_service")
    return folder / "my_service"


def run(folder: Path, *command: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """What a command prints that has to succeed."""
    result = run_in(folder, *command, environ=environ)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}: {result.stdout[-3000:]}")
    return result.stdout


def processor_seconds(folder: Path, *command: str | Path) -> float:
    """What a command takes of the processor, with all that it starts; a clock would depend more on other programs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(folder, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
