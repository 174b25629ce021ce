"""The container file and the compose file name what is there."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from config import ROOT, load

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
CONTAINERFILE = (ROOT / "deploy/Containerfile").read_text()
OURS = [name for name, service in COMPOSE["services"].items() if "build" in service]
SECRETS = {"/run/secrets/database_url": "postgresql://service:unknown@database/service"}
# What is Python's or the shell's and not ours.
FOREIGN = {"PATH", "PYTHONDONTWRITEBYTECODE"}


def image_environment() -> dict[str, str]:
    """What the image sets."""
    [block] = re.findall(r"^ENV ((?:.*\\\n)*.*)$", CONTAINERFILE, re.MULTILINE)
    return dict(re.findall(r"(\w+)=(\S+)", block))


def environment_of(service: str, folder: Path) -> dict[str, str]:
    """What a container of that service has, with its secrets in a folder."""
    environ = image_environment() | COMPOSE["services"][service].get("environment", {})
    for name, value in environ.items():
        if value in SECRETS:
            environ[name] = str(folder / Path(value).name)
            Path(environ[name]).write_text(SECRETS[value])
    return {name: value for name, value in environ.items() if name not in FOREIGN}


def values(environ: dict[str, str]) -> dict[str, Any]:
    """All settings without where they came from."""
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(load(environ), origins={}), enc_hook=str)
    return found


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_and_changes_it(service: str, tmp_path: Path) -> None:
    environ = environment_of(service, tmp_path)
    everything = values(environ)
    for name in environ:
        without = {other: value for other, value in environ.items() if other != name}
        assert values(without) != everything, name


@pytest.mark.parametrize("service", OURS)
def test_the_service_is_in_production_with_both_servers_and_its_app_folder_is_a_volume(
    service: str, tmp_path: Path
) -> None:
    settings = load(environment_of(service, tmp_path))
    assert settings.environment == "production"
    assert settings.database.url == SECRETS["/run/secrets/database_url"]
    assert settings.queue.url == f"redis://{next(name for name in COMPOSE['services'] if name == 'redis')}:6379/0"
    assert f"app:{settings.app_dir.path}" in COMPOSE["services"][service]["volumes"]
    assert re.search(rf"^VOLUME {settings.app_dir.path}$", CONTAINERFILE, re.MULTILINE)


def test_no_container_may_do_more_than_it_needs_and_no_server_is_published() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"]}


@pytest.mark.parametrize("service", [name for name in OURS if "command" in COMPOSE["services"][name]])
def test_the_commands_are_there(service: str) -> None:
    python, script, *_ = COMPOSE["services"][service]["command"]
    assert python == "python"
    assert (ROOT / script).is_file()


def test_secrets_stay_out_of_the_repository() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/secrets/" in ignored
    for secret in COMPOSE["secrets"].values():
        assert (ROOT / "deploy" / secret["file"]).resolve().parent == ROOT / "secrets"


def test_the_image_ends_as_a_user_that_is_not_root() -> None:
    assert re.findall(r"^USER (.*)$", CONTAINERFILE, re.MULTILINE)[-1] == "10001:10001"
