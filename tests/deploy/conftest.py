"""A machine with the generated service on it, for all tests of a process."""

import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import TEMPLATE
from deploy.machine import Machine, running_machine, what_is_missing
from deploy.releases import VARIANTS, bake, pack, wheels
from deploy.service import ARTIFACTS, Service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these where a machine can run; where they must, fail if it cannot."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if reason := what_is_missing():
        assert "REQUIRE_MACHINE" not in os.environ, reason
        for item in here:
            item.add_marker(pytest.mark.skip(reason))
    for item in here:
        # One machine for all of them, if the tests are spread by groups.
        item.add_marker(pytest.mark.xdist_group("machine"))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the default answers, in git."""
    return bake(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A host that has nothing of the service yet, but for uv."""
    with running_machine() as machine:
        machine.put(TEMPLATE / ".venv/bin/uv", "/usr/local/bin/uv")
        yield machine


@pytest.fixture(scope="session")
def installation(
    machine: Machine, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Service, list[CompletedProcess[str]]]:
    """The service as a first deploy leaves it, and what the commands printed that led there."""
    service = Service(machine)
    artifacts = tmp_path_factory.mktemp("artifacts")
    for variant in VARIANTS:
        pack(project, variant, artifacts)
    carry(service, artifacts, wheels(project))
    commands = [service.tool("init", "--host", service.host), service.deploy("first")]
    return service, commands


def carry(service: Service, artifacts: Path, wheels: Path) -> None:
    """Bring artifacts and wheels to the host, and unpack the tool that is in the first of them."""
    folder = f"{ARTIFACTS}/{service.slug}"
    service.machine.put(artifacts, folder)
    service.machine.put(wheels, f"{folder}/wheels")
    service.machine.run("mkdir", "-p", f"/root/{service.slug}", check=True)
    unpack = ["tar", "-xzf", service.artifact("first"), "-C", f"/root/{service.slug}"]
    service.machine.run(*unpack, check=True)


@pytest.fixture
def service(installation: tuple[Service, list[CompletedProcess[str]]]) -> Service:
    """The service, live, as good as after its first deploy whatever a test before has left."""
    service = installation[0]
    live = service.live() if service.machine.path(f"{service.root}/app").is_symlink() else ""
    if not live or service.serving() != live:
        result = service.deploy("first")
        assert result.returncode == 0, result.stdout + result.stderr
    return service
