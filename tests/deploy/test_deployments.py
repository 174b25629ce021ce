"""Releases that come, fail and are rolled back, while the site is in use."""

import time
from collections.abc import Iterator

import pytest
from deploy.load import load
from deploy.machine import Machine, wait_until
from deploy.service import Service

LITERAL_UNIT = """
[Service]
Type=notify
User=www-data
Group=www-data
WorkingDirectory=/srv/literal/app
RuntimeDirectory=literal
Environment=APP_ENV=production APP_DIR=/srv/my_service/shared APP_WEB__TRUSTED_PROXIES=1
ExecStart=/srv/literal/app/.venv/bin/gunicorn --bind unix:/run/literal/gunicorn.sock web:app
ExecReload=/bin/kill -HUP $MAINPID
"""
LITERAL_SITE = """
server {
    listen 80;
    server_name literal.test;
    location / {
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-Proto https;
        proxy_pass http://unix:/run/literal/gunicorn.sock;
    }
}
"""


@pytest.mark.parametrize(
    ("connections", "commands"),
    [
        (12, [("second", 0), ("import error", 3), ("not ready", 5)]),
        (200, [("migration error", 4), ("no queue", 5), ("rollback", 0), ("first", 0)]),
    ],
)
def test_no_request_fails_while_releases_come_fail_and_go(
    service: Service, connections: int, commands: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command, most of them a deploy, has its exit code; another release is live after it only if that is 0."""
    if len(service.releases()) == 1:
        assert service.deploy("second").returncode == 0
    start = time.monotonic()
    with load(service, connections) as result:
        for command, code in commands:
            before, releases = service.live(), service.releases()

            done = service.tool("rollback") if command == "rollback" else service.deploy(command)

            assert done.returncode == code, done.stdout + done.stderr
            assert (service.live() != before) == (code == 0)
            assert service.serving() == service.live()
            # What was never live is gone; one that failed after the switch stays until the next command.
            assert code in (0, 5) or set(service.releases()) <= set(releases)
            assert len(done.stderr.splitlines()) == {0: 0, 3: 1, 4: 1, 5: 2}[code], done.stderr

    with capsys.disabled():
        print(f"\n{connections} connections, {time.monotonic() - start:.0f} s: {result}")
    assert result.failed == 0, result.output
    assert service.units("@*") == service.units("-preflight@*") == []


def test_a_release_to_go_back_to_has_to_be_there(service: Service) -> None:
    """The first release of all has none before it; and no name leads out of the folder."""
    live = service.live()
    while service.releases()[0] != service.live():
        assert service.tool("rollback", service.releases()[0]).returncode == 0
    for words in ([], ["20200101000000"], ["../shared"], ["/etc"], [service.live()]):
        result = service.tool("rollback", *words)
        assert result.returncode == 2, words
        assert len(result.stderr.splitlines()) == 1, result.stderr
    assert service.serving() == service.live() <= live


class TestTheLayoutTakenLiterally:
    """What the tests above would see, were the socket the service's own: they have to be able to fail."""

    @pytest.fixture
    def literal(self, service: Service) -> Iterator[Service]:
        """The live release once more, with a unit that makes its own socket."""
        machine = service.machine
        machine.write("/etc/systemd/system/literal.service", LITERAL_UNIT)
        machine.write("/etc/nginx/conf.d/literal.conf", LITERAL_SITE)
        self.point(machine, service.live())
        machine.run("systemctl", "daemon-reload", check=True)
        machine.run("systemctl", "restart", "literal", check=True)
        machine.run("systemctl", "reload", "nginx", check=True)
        yield Service(machine, slug="literal", host="literal.test")
        machine.run("systemctl", "stop", "literal")
        for path in ("/etc/systemd/system/literal.service", "/etc/nginx/conf.d/literal.conf"):
            machine.path(path).unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "reload", "nginx")

    def point(self, machine: Machine, release: str) -> None:
        """Switch the link."""
        machine.run("mkdir", "-p", "/srv/literal", check=True)
        machine.run("ln", "-sfn", f"/srv/my_service/releases/{release}", "/srv/literal/app", check=True)

    def test_a_restart_loses_requests(self, literal: Service) -> None:
        with load(literal, 12) as result:
            literal.machine.run("systemctl", "restart", "literal", check=True)

        assert result.failed > 0, result.output

    def test_a_reload_goes_on_with_the_old_release(self, service: Service, literal: Service) -> None:
        old = service.live()
        assert service.deploy("second").returncode == 0
        self.point(literal.machine, service.live())

        literal.machine.run("systemctl", "reload", "literal", check=True)

        wait_until(lambda: literal.serving() != "", 10, "nothing answers after the reload")
        assert literal.serving() == old != service.live()
