"""A machine with the generated service on it, for all tests of a process."""

import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from deploy.machine import Machine, running_machine, what_is_missing
from deploy.service import Service, installed

# Once a deploy has compiled the packages, the others copy the bytecode: it is the same in all releases.
UV = """#!/bin/sh
set -eu
[ "$1 $2 $3 $4" = "pip install -q --compile-bytecode" ] || exec /opt/uv "$@"
shift 4
/opt/uv pip install -q "$@"
cp --archive /opt/packages/. "$2/lib"
"""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run these where a machine can run; where they must, fail if it cannot."""
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.long)
        if reason := what_is_missing():
            if "REQUIRE_MACHINE" in os.environ:
                raise pytest.UsageError(reason)
            item.add_marker(pytest.mark.skip(reason))


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A host; each process of tests has its own."""
    with running_machine() as machine:
        yield machine


@pytest.fixture(scope="session")
def installation(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Service, list[CompletedProcess[str]]]:
    """The service as a first deploy leaves it, and how the commands ended that led there."""
    service, commands = installed(machine, tmp_path_factory.mktemp("project"))
    machine.path("/usr/local/bin/uv").rename(machine.path("/opt/uv"))
    machine.write("/usr/local/bin/uv", UV, mode=0o755)
    machine.run("cp", "--archive", f"{service.root}/app/.venv/lib", "/opt/packages", check=True)
    # Their bytecode alone, which is not imported where its package is missing.
    machine.run("find", "/opt/packages", "-type", "f", "!", "-name", "*.pyc", "-delete", check=True)
    return service, commands


@pytest.fixture
def service(installation: tuple[Service, list[CompletedProcess[str]]]) -> Service:
    """The service, live, as good as after its first deploy whatever a test before has left."""
    service = installation[0]
    live = service.live() if service.machine.path(f"{service.root}/app").is_symlink() else ""
    if not live or service.serving() != live:
        result = service.deploy("first")
        assert result.returncode == 0, result.stdout + result.stderr
    return service
