"""What `release.py doctor` says of a host on which something is wrong, and that what it says mends it."""

import re

import pytest
from deploy.service import DEPLOY_PATIENCE, Service

SOCKET_UNIT = "/etc/systemd/system/my_service.socket"
# The reference's known mistakes, and others: what makes them, a point that has to find them, and what people do before
# they run what the doctor prints.
FAULTS = {
    "secrets that others read": ("chmod 644 shared/.env", "layout 4: nobody", ""),
    "a folder that others write": ("chmod 777 run", "debug 2, checklist 6", ""),
    "media that nginx cannot read": ("chmod 700 shared/media", "debug 1: nginx reaches uploads", ""),
    "a parent folder without the traverse bit": (
        "chmod 700 /srv",
        "debug 1: nginx reaches the socket",
        "chmod o+x /srv",
    ),
    "uploads inside the release": ("mkdir app/media", "layout 3, 4, checklist 1, 3, 7", "rmdir app/media"),
    "logs inside the release": ("mkdir app/logs", "layout 3, 4, checklist 1, 3, 7", "rmdir app/logs"),
    "secrets inside the release": ("touch app/.env", "layout 3, 4, checklist 1, 3, 7", "rm app/.env"),
    "shared data that lies in a release": (
        "mv shared/media app/uploads; ln -s ../app/uploads shared/media",
        "checklist 8",
        "rm shared/media; mv app/uploads shared/media",
    ),
    "code that others can change": ("chmod 666 app/web.py", "debug 2, checklist 6", ""),
    "a base folder under /root": (
        "cd /; mv /srv/my_service /root; ln -s /root/my_service /srv",
        "layout 1, 2",
        "cd /; rm /srv/my_service; mv /root/my_service /srv",
    ),
    "a socket in /tmp": (
        f"sed -i s,^ListenStream=.*,ListenStream=/tmp/gunicorn.sock, {SOCKET_UNIT}; rm run/gunicorn.sock; "
        "systemctl daemon-reload; systemctl restart my_service.socket; systemctl start my_service",
        "debug 3, 5, checklist 4, 5",
        "",
    ),
    "static files only inside the package": ("rm -r shared/static/*", "layout 3, checklist 2", ""),
    # The usual way to write it; `GET /static../.env` leaves the folder.
    "an alias without its closing slash": (
        r"sed -i 's|location ^~ /media/ {|location ^~ /static { alias /srv/my_service/shared/static/; }\n&|' "
        "/etc/nginx/conf.d/my_service.conf; systemctl restart nginx",
        "debug 5: nothing else",
        "",
    ),
    "a link that was switched by hand": ("ln -sfn releases/$(ls releases | head -n 1) app", "debug 6", ""),
    "a second release beside the live one": ("systemctl start my_service@$(ls releases | head -n 1)", "debug 6", ""),
    "a unit that was stopped": ("systemctl disable -q --now my_service-scheduler", "debug 3: the units run", ""),
    "a broken file of nginx": ("echo x > /etc/nginx/conf.d/x.conf", "debug 5, 6", "rm /etc/nginx/conf.d/x.conf"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_finds_a_fault_and_names_the_command_that_mends_it(service: Service, name: str) -> None:
    if len(service.releases()) < 2 or service.releases()[0] == service.live():
        assert service.deploy("second").returncode == 0
    plant, point, by_hand = FAULTS[name]
    service.machine.run("sh", "-euc", f"cd {service.root}; {plant}", check=True)

    first = found = service.doctor()

    service.machine.run("sh", "-euc", f"cd {service.root}; {by_hand}", check=True)
    # As people do it: what comes first is mended first, and may have been the cause of others.
    for _ in range(3):
        if found := service.doctor():
            for command in commands_in(next(iter(found.values())), service):
                service.machine.run("sh", "-c", command, timeout=DEPLOY_PATIENCE)
    assert any(title.startswith(point) for title in first), first
    assert found == {}, first


def commands_in(detail: str, service: Service) -> list[str]:
    """The commands that the doctor prints under a check, but for those in which people put in a path."""
    printed = detail.rpartition("run: ")[2].strip().split("; ")
    tool = f"python3 {service.script}"
    commands = [part.replace("release.py", tool).replace("ARTIFACT", service.artifact("first")) for part in printed]
    return [command for command in commands if not re.search("[A-Z]{4}|^and ", command.replace(tool, ""))]
