"""What `release.py doctor` says of a host on which something is wrong, and that what it says mends it."""

import re

import pytest
from deploy.service import Service

# The reference's known mistakes, and others: what makes them, the points that have to find them, and what people do
# before they run what the doctor prints.
FAULTS = {
    "secrets that others read": ("chmod 644 shared/.env", ["layout 1"], ""),
    "a folder that others write": ("chmod 777 run", ["layout 1", "debug 2"], ""),
    "media that everybody reads": ("chmod 700 shared/media", ["debug 1"], "setfacl -m m::rx shared/media"),
    "a parent folder without the traverse bit": ("chmod 700 /srv", ["debug 1", "debug 5"], "chmod o+x /srv"),
    "uploads inside the release": ("mkdir app/media", ["layout 3"], "rmdir app/media"),
    "logs inside the release": ("mkdir app/logs", ["layout 3"], "rmdir app/logs"),
    "secrets inside the release": ("touch app/.env", ["layout 3"], "rm app/.env"),
    "shared data that lies in a release": (
        "mv shared/media app/uploads; ln -s ../app/uploads shared/media",
        ["layout 3"],
        "rm shared/media; mv app/uploads shared/media",
    ),
    "code that others can change": ("chmod 666 app/web.py", ["debug 2"], ""),
    "a base folder under /root": (
        "mv /srv/my_service /root; ln -s /root/my_service /srv",
        ["layout 1"],
        "cd /; rm /srv/my_service; mv /root/my_service /srv",
    ),
    "a socket in /tmp": (
        "sed -i s,^ListenStream=.*,ListenStream=/tmp/gunicorn.sock, /etc/systemd/system/my_service.socket; "
        "systemctl daemon-reload; systemctl restart my_service.socket; systemctl start my_service; rm -f run/gunicorn.sock",
        ["debug 3, 5", "debug 4", "debug 5, 6"],
        "",
    ),
    "static files only inside the package": ("rm -r shared/static/*", ["layout 3, checklist 2"], ""),
    # The usual way to write it; `GET /static../.env` leaves the folder.
    "an alias without its closing slash": (
        r"sed -i '0,/location \^~ .media.*/s||location ^~ /static { alias /srv/my_service/shared/static/; }\n&|' "
        "/etc/nginx/conf.d/my_service.conf; systemctl reload nginx; sleep 1",
        ["debug 5: nothing else"],
        "",
    ),
    "a link that was switched by hand": ("ln -sfn releases/$(ls releases | head -n 1) app", ["debug 3, 6"], ""),
    "a second release beside the live one": (
        "systemctl start my_service@$(ls releases | head -n 1)",
        ["debug 3, 6"],
        "",
    ),
    "a unit that was stopped": ("systemctl disable -q --now my_service-scheduler", ["debug 3, 6"], ""),
    "a broken file of nginx": (
        "echo nonsense > /etc/nginx/conf.d/x.conf",
        ["debug 5, 6"],
        "rm /etc/nginx/conf.d/x.conf",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_finds_a_fault_and_names_the_command_that_mends_it(service: Service, name: str) -> None:
    if len(service.releases()) < 2 or service.releases()[0] == service.live():
        assert service.deploy("second").returncode == 0
    plant, points, by_hand = FAULTS[name]
    service.machine.run("sh", "-euc", f"cd {service.root}; {plant}", check=True)

    found = service.doctor()

    for point in points:
        assert any(title.startswith(point) for title in found), found
    service.machine.run("sh", "-euc", f"cd {service.root}; {by_hand}", check=True)
    for detail in found.values():
        for command in commands_in(detail, service):
            service.machine.run("sh", "-c", command, timeout=120)
    assert service.doctor() == {}, found


def commands_in(detail: str, service: Service) -> list[str]:
    """The commands that the doctor prints under a check; people know which of them needs what in capitals."""
    printed = detail.rpartition("run: ")[2].strip().split("; ")
    tool = f"python3 {service.script}"
    commands = [
        command.replace("release.py", tool).replace("ARTIFACT", service.artifact("first")) for command in printed
    ]
    return [command for command in commands if not re.match("see: |mv PATH|new secrets|chmod o.x FOLDER", command)]
