"""Makes artifacts of baked projects."""

import hashlib
import shutil
from pathlib import Path

from baking import PROJECT_VENV, TEMPLATE, run_in
from deploy.machine import made_once

# Nothing of the developer's own.
GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
UV = TEMPLATE / ".venv/bin/uv"


def commit(project: Path) -> None:
    """Put the whole project into a repository of its own."""
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "The first one"]):
        result = run_in(project, "git", *command, environ=GIT)
        assert result.returncode == 0, result.stdout


def make(project: Path, *targets: str, **environ: str) -> None:
    """Make targets with the environment that the tests share."""
    shared = [f"UV={UV}", f"VENV={PROJECT_VENV}", "-o", f"{PROJECT_VENV}/ready"]
    result = run_in(project, "make", *targets, *shared, environ={**GIT, **environ})
    assert result.returncode == 0, result.stdout[-5000:]


def wheels(project: Path, python: str) -> Path:
    """What `make wheels` makes for a host's Python, on first use of these requirements and this way to fetch them."""
    made_of = [(project / name).read_bytes() for name in ("requirements.txt", "Makefile")]
    key = hashlib.sha256(b"".join([*made_of, python.encode()])).hexdigest()[:12]

    def fetch(folder: Path) -> None:
        make(project, "wheels", PIP_PYTHON_VERSION=python)
        shutil.move(project / "dist/wheels", folder)

    return made_once(f"wheels-{key}", fetch)
