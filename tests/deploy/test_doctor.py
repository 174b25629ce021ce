"""What `release.py doctor` says of a host on which something is wrong, and that what it says mends it."""

import re

import pytest
from deploy.service import DEPLOY_PATIENCE, Service

SOCKET_UNIT = "/etc/systemd/system/my_service.socket"
LOGIN = """echo '{"action": "login", "address": "ADDRESS"}'"""
# The reference's known mistakes, and others, those together that do not hide one another: what makes each, a point that
# has to find it, and what people do before they run what the doctor prints.
FAULTS = {
    "rights": [
        ("chmod 644 shared/.env", "layout 4: nobody", ""),
        ("chmod 777 run", "debug 2, checklist 6", ""),
        ("chmod 700 shared/media", "debug 1: nginx reaches uploads", ""),
        ("chmod 666 app/web.py", "debug 2, checklist 6", ""),
    ],
    "a parent folder without the traverse bit": [
        ("chmod 700 /srv", "debug 1: nginx reaches the socket", "chmod o+x /srv"),
    ],
    "uploads, logs and secrets in the release": [
        ("mkdir app/media app/logs", "layout 3, 4, checklist 1, 3, 7", "rmdir app/media app/logs"),
        ("touch app/.env", "layout 3, 4, checklist 1, 3, 7", "rm app/.env"),
        (
            "mv shared/media app/uploads; ln -s ../app/uploads shared/media",
            "checklist 8",
            "rm shared/media; mv app/uploads shared/media",
        ),
    ],
    "a base folder under /root": [
        (
            "cd /; mv /srv/my_service /root; ln -s /root/my_service /srv",
            "layout 1, 2",
            "cd /; rm /srv/my_service; mv /root/my_service /srv",
        ),
    ],
    "a socket in /tmp": [
        (
            f"sed -i s,^ListenStream=.*,ListenStream=/tmp/gunicorn.sock, {SOCKET_UNIT}; rm -f run/gunicorn.sock; "
            "systemctl daemon-reload; systemctl restart my_service.socket; systemctl start my_service",
            "debug 3, 5, checklist 4, 5",
            "",
        ),
    ],
    "nginx": [
        # The usual way to write it; `GET /static../.env` leaves the folder, though nginx may not read that file.
        (
            r"sed -i 's|location ^~ /media/ {|location ^~ /static { alias /srv/my_service/shared/static/; }\n&|' "
            "/etc/nginx/conf.d/my_service.conf; systemctl restart nginx",
            "debug 3, 5, checklist 4, 5",
            "",
        ),
        ("rm -r shared/static/*", "layout 3, checklist 2", ""),
        ("echo x > /etc/nginx/conf.d/x.conf", "debug 5, 6", "rm /etc/nginx/conf.d/x.conf"),
    ],
    "units": [
        ("systemctl disable -q --now my_service-scheduler", "debug 3: the units run", ""),
        ("systemctl start my_service@$(ls releases | head -n 1)", "debug 6", ""),
    ],
    "a proxy in front that nginx does not know": [
        (
            f"for number in $(seq 20); do {LOGIN} >> shared/logs/audit.jsonl; done".replace("ADDRESS", "10.0.0.5"),
            "nginx knows visitors apart",
            f"{LOGIN} >> shared/logs/audit.jsonl".replace("ADDRESS", "10.0.0.6"),
        ),
    ],
    "a link that was switched by hand": [("ln -sfn releases/$(ls releases | head -n 1) app", "debug 6", "")],
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_finds_faults_and_names_the_commands_that_mend_them(service: Service, name: str) -> None:
    if len(service.releases()) < 2 or service.releases()[0] == service.live():
        assert service.deploy("second").returncode == 0
    plants, points, by_hand = zip(*FAULTS[name], strict=True)
    service.machine.run("sh", "-euc", f"cd {service.root}; {'; '.join(plants)}", check=True)

    first = found = service.doctor()

    service.machine.run("sh", "-euc", f"cd {service.root}; {'; '.join(filter(None, by_hand))}", check=True)
    # As people do it: what comes first is mended first, and may have been the cause of others.
    for _ in first:
        if not (found := service.doctor()):
            break
        for command in commands_in(next(iter(found.values())), service):
            service.machine.run("sh", "-c", command, timeout=DEPLOY_PATIENCE)
    for point in points:
        assert any(title.startswith(point) for title in first), first
    assert (found and service.doctor()) == {}, first


def commands_in(detail: str, service: Service) -> list[str]:
    """The commands that the doctor prints under a check, but for those in which people put in a path."""
    printed = detail.rpartition("run: ")[2].strip().split("; ")
    tool = f"python3 {service.script}"
    commands = [part.replace("release.py", tool).replace("ARTIFACT", service.artifact("first")) for part in printed]
    return [command for command in commands if not re.search("[A-Z]{4}|^and ", command.replace(tool, ""))]
