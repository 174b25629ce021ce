"""What `release.py doctor` says of a host on which something is wrong, and that what it says mends it."""

import re
from dataclasses import dataclass

import pytest
from deploy.service import Service


@dataclass(frozen=True)
class Fault:
    """Something that can go wrong.

    Attributes:
        plant: makes it so, in the service's folder.
        checks: that find it.
        by_hand: what people have to do before they run what the doctor prints.
    """

    plant: str
    checks: tuple[str, ...]
    by_hand: str = "true"


FAULTS = {
    "rights": (
        Fault("chmod 644 shared/.env", ("app folder",)),
        Fault("chmod 777 shared/media", ("app folder",)),
        Fault("chmod 700 shared/static", ("static files",)),
        Fault("chmod 700 run", ("folders", "socket", "site")),
    ),
    "code that others can change": (Fault("chmod 666 app/web.py", ("code",)),),
    "a link that was switched by hand": (
        Fault("ln -sfn releases/$(ls releases | head -n 1) app", ("processes", "answer", "site")),
    ),
    "units": (
        Fault("echo '# mine' >> /etc/systemd/system/my_service-queue.service", ("written files", "units")),
        Fault("systemctl start my_service@$(basename $(readlink app))", ("left over",)),
        Fault("rm venv", ("packages",)),
    ),
    "a service that was stopped": (Fault("systemctl disable -q --now my_service-scheduler", ("units", "processes")),),
    "a broken file of the web server": (
        Fault("echo nonsense > /etc/nginx/conf.d/other.conf", ("nginx",), "rm /etc/nginx/conf.d/other.conf"),
    ),
    "a web server that was stopped": (Fault("systemctl stop nginx", ("units", "site", "static files")),),
    # The usual way to write it; `GET /static../.env` leaves the folder.
    "an alias without a slash": (
        Fault(
            r"sed -i '0,/location \^~ .static.*/s||location ^~ /static { alias /srv/my_service/shared/static/; }\n&|' "
            "/etc/nginx/conf.d/my_service.conf && systemctl reload nginx",
            ("leaks", "written files"),
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_finds_a_fault_and_names_the_command_that_mends_it(service: Service, name: str) -> None:
    if len(service.releases()) < 2 or service.releases()[0] == service.live():
        assert service.deploy("second").returncode == 0
    assert "last command" not in service.doctor() or service.deploy("first").returncode == 0
    assert service.doctor() == {}
    for fault in FAULTS[name]:
        service.machine.run("sh", "-euc", f"cd {service.root}; {fault.plant}", check=True)

    found = service.doctor()

    for fault in FAULTS[name]:
        for check in fault.checks:
            assert check in found, found
        service.machine.run("sh", "-euc", fault.by_hand, check=True)
    for detail in found.values():
        for command in commands_in(detail, service):
            service.machine.run("sh", "-c", command, timeout=120)
    assert service.doctor() == {}, found


def commands_in(detail: str, service: Service) -> list[str]:
    """The commands that a line of the doctor's prints, with what they leave open."""
    commands = re.findall(r"`([^`]+)`", detail)
    tool = f"python3 {service.script}"
    replaced = {
        "release.py": tool,
        "deploy ARTIFACT": f"deploy --offline {service.artifact('first')}",
        "UNIT": detail.partition(":")[0],
    }
    for old, new in replaced.items():
        commands = [command.replace(old, new) for command in commands]
    return [command for command in commands if command.split()[0] not in ("journalctl", "tail", "namei", "rollback")]
