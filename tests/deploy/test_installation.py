"""A host's first release, installed as docs/production.md says."""

from subprocess import CompletedProcess

from deploy.service import Service

PAGES = {
    "/": "<h1>",
    "/register": 'name="username"',
    "/login": 'name="password"',
    "/static/style.css": ":root",
    "/livez": '"ok"',
    "/readyz": '"ok"',
    "/version": "my_service",
}


def test_init_and_deploy_bring_a_bare_host_to_serve(
    installation: tuple[Service, list[CompletedProcess[str]]], service: Service
) -> None:
    for command in installation[1]:
        assert command.returncode == 0, command.stdout + command.stderr
        assert command.stderr == ""

    for path, text in PAGES.items():
        answer = service.get(path)
        assert answer.status == 200, path
        assert text in answer.text, path
    assert service.serving() == service.live()
    assert service.doctor() == {}
