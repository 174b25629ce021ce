"""Fixtures of the template's tests."""

import os
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
from baking import TEMPLATE, Bake, generate, not_offered
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# A shell that starts tests in the background has them ignore Ctrl-C, and so would what they start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the tests of deploys to two processes, each of which has a machine, and deals out the others one by one.

    The recipes go into one project, one after another.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/test_recipes.py"):
            return "recipes"
        if not nodeid.startswith("tests/deploy/"):
            return nodeid
        return "doctor" if "test_doctor" in nodeid else "deploys"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """How tests are distributed."""
    return Scheduling(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors: some tests wait for a machine or a server."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, so that nothing waits for one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Bakes a project once for the same answers. Callers only read it."""

    @cache
    def baked(**answers: str) -> Path:
        return generate(tmp_path_factory.mktemp("baked"), answers=answers)

    return baked


@pytest.fixture
def bake(baked: Bake, tmp_path: Path) -> Bake:
    """Bakes a project with the answers that are given, and the defaults for the others.

    A test that needs a choice gives it, and is skipped in a fork that does not offer it.
    """

    def bake(**answers: str) -> Path:
        if missing := not_offered(answers):
            pytest.skip(f"cookiecutter.json does not offer {', '.join(missing)}")
        project = baked(**answers)
        return Path(shutil.copytree(project, Path(tempfile.mkdtemp(dir=tmp_path)) / project.name))

    return bake


@pytest.fixture
def template_copy(tmp_path: Path) -> Path:
    """The template as git knows it, to be changed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=TEMPLATE,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path / "template"
    for name in filter(None, listing.stdout.split("\0")):
        if (TEMPLATE / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, target)
    return copy
