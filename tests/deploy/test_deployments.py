"""Releases that come, fail and are rolled back, while the site is in use."""

from subprocess import CompletedProcess

import pytest
from deploy.load import load
from deploy.service import Service

PAGES = {
    "/": "<h1>",
    "/register": 'name="username"',
    "/login": 'name="password"',
    "/static/style.css": ":root",
    "/livez": '"ok"',
    "/readyz": '"ok"',
}
BROKEN = ("no module", "import error", "migration error", "not ready", "no queue")


def test_init_and_deploy_bring_a_bare_host_to_serve(
    installation: tuple[Service, list[CompletedProcess[str]]], service: Service
) -> None:
    for command in installation[1]:
        assert (command.returncode, command.stderr) == (0, ""), command.stdout
    for path, text in PAGES.items():
        answer = service.get(path)
        assert answer.status == 200, path
        assert text in answer.text, path
    # Which version runs is for those on the host.
    assert service.get("/version").status == 404
    assert service.serving() == service.live()
    assert service.doctor() == {}


@pytest.mark.parametrize(
    ("connections", "commands"),
    [(12, ["second", "import error", "not ready"]), (200, ["migration error", "no queue", "rollback", "migration"])],
)
def test_no_request_fails_while_releases_come_fail_and_go(
    service: Service, connections: int, commands: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if len(service.releases()) == 1:
        assert service.deploy("second").returncode == 0
    with load(service, connections, "/slow") as result:
        for command in commands:
            before, releases = service.live(), service.releases()

            done = service.tool("rollback") if command == "rollback" else service.deploy(command)

            assert done.returncode == (command in BROKEN), done.stdout + done.stderr
            assert len(done.stderr.splitlines()) == (command in BROKEN), done.stderr
            assert (service.live() == before) == (command in BROKEN)
            assert command not in BROKEN or service.releases() == releases
            assert service.serving() == service.live()
            assert service.units("@*") == [f"my_service@{service.live()}.service"]

    with capsys.disabled():
        print(f"\n{connections} connections: {result}")
    assert result.failed == 0, result.output


def test_a_release_that_cannot_be_imported_is_never_started(service: Service) -> None:
    before = service.live(), service.releases()

    result = service.deploy("no module")

    assert result.returncode == 1
    assert "nothing_of_that_name" in result.stderr
    assert (service.live(), service.releases()) == before


def test_a_release_to_go_back_to_has_to_be_there(service: Service) -> None:
    live = service.live()
    while service.releases()[0] != service.live():
        assert service.tool("rollback", service.releases()[0]).returncode == 0
    for words in ([], ["20200101000000"], ["../shared"], ["/etc"]):
        result = service.tool("rollback", *words)
        assert result.returncode == 2, words
        assert len(result.stderr.splitlines()) == 1, result.stderr
    assert service.serving() == service.live() <= live


def test_a_restart_of_a_socket_that_is_not_systemd_s_loses_requests(service: Service) -> None:
    """What the tests above would see: they have to be able to fail."""
    with load(service, 12, "/slow") as result:
        service.machine.run("systemctl", "restart", "my_service.socket", check=True)

    assert result.failed > 0, result.output
