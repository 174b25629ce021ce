"""The service does its work where it may do little else: behind nginx, in units that are confined."""

import html
import re

import pytest
from baking import EXAMPLE
from deploy.machine import Machine, wait_until
from deploy.releases import PYTHON, bake, pack
from deploy.service import DEPLOY_PATIENCE, Service, Visitor
from releasing import wheels

PASSWORD = "correct horse battery staple"
# Seconds.
JOB_PATIENCE = 60
PICTURE = """
import struct, sys, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\\0" + bytes([row, 90, 160]) * 64 for row in range(64))
sys.stdout.buffer.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)))
sys.stdout.buffer.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
"""


@pytest.fixture(scope="module")
def other(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A second service on the same host, which runs as nginx does, and has a certificate."""
    project = bake(tmp_path_factory.mktemp("other"), "other")
    artifacts = tmp_path_factory.mktemp("other-artifacts")
    pack(project, "first", artifacts)
    service = Service(machine, slug="other", host="other.test", secure=True)
    service.carry(artifacts, wheels(project, PYTHON))
    folder = "/etc/ssl/other"
    machine.path(folder).mkdir()
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=other.test"]
    machine.run(
        *request,
        "-addext",
        "subjectAltName=DNS:other.test",
        "-keyout",
        f"{folder}/privkey.pem",
        "-out",
        f"{folder}/fullchain.pem",
        check=True,
    )
    service.configure(user="www-data", certificate=folder)
    for command in (service.tool("init"), service.deploy("first")):
        assert command.returncode == 0, command.stdout + command.stderr
    return service


@pytest.fixture(params=["own user", "nginx's user and TLS"])
def used(request: pytest.FixtureRequest, service: Service) -> Service:
    """The service as it is by default, and the other one."""
    other: Service = request.getfixturevalue("other") if request.param != "own user" else service
    return other


@pytest.mark.skipif(EXAMPLE != "blog", reason="cookiecutter.json does not offer example=blog")
def test_people_register_post_and_get_what_jobs_have_made_for_them(used: Service) -> None:
    visitor, profile = Visitor(used), "/profile/ada"
    made = visitor.send("/register", username="ada", email="ada@example.com", password=PASSWORD)
    assert made.status == 302, made.text
    assert "Secure" in made.headers["set-cookie"]
    assert visitor.send("/posts/new", title="A first post", body="Hello").status == 302
    assert "A first post" in used.get("/").text

    used.machine.run("sh", "-euc", f"python3 -c '{PICTURE}' > /opt/picture.png", check=True)
    assert visitor.send("/picture", picture="@/opt/picture.png").status == 302
    exported = visitor.send("/posts/export", page=profile)
    assert exported.status == 302
    picture = used.get(wait_for_link(visitor, profile, r'src="(/files/media/[^"]+)"'))
    archive = used.get(wait_for_link(visitor, exported.headers["location"], r'href="([^"]+)" download'))

    assert picture.status == 200
    assert picture.headers["content-type"].startswith("image/")
    assert archive.status == 200
    assert "A first post" in archive.text
    assert used.machine.run(used.slug, "queue", "status").returncode == 0


def wait_for_link(visitor: Visitor, path: str, pattern: str) -> str:
    """A link that a page has as soon as a job is done."""

    def link() -> re.Match[str] | None:
        return re.search(pattern, visitor.get(path).text)

    wait_until(link, JOB_PATIENCE, f"{path} never has {pattern}")
    found = link()
    assert found
    return html.unescape(found[1])


def test_what_is_beside_media_and_static_files_cannot_be_had(used: Service) -> None:
    for path in ("/static../.env", "/media../.env", "/media/../.env", "/.env", "/protected/default/", "/app.sqlite3"):
        assert used.get(path).status in (400, 404), path


def test_another_host_name_gets_no_answer(used: Service) -> None:
    assert used.get("/", host="another.test").status == 0


def test_a_static_file_has_a_name_that_changes_with_it_and_is_kept_for_ever(used: Service) -> None:
    link = re.search(r'href="(/static/style\.css\?v=[0-9a-f]{8})"', used.get("/").text)
    assert link

    answer = used.get(link[1])

    assert answer.status == 200
    assert "immutable" in answer.headers["cache-control"]


def test_a_backup_is_made_and_restored_by_the_command_of_the_live_release(used: Service) -> None:
    made = used.machine.run(used.slug, "backup", "create", check=True)
    folder = f"{used.root}/shared/work/restored"
    used.machine.run(used.slug, "backup", "restore", made.stdout.split()[-1], "--to", folder, check=True)
    for name in (".env", "data/app.sqlite3"):
        assert used.machine.path(f"{folder}/{name}").exists()


def test_the_doctor_has_nothing_to_say(used: Service) -> None:
    assert used.doctor() == {}


def test_with_pip_alone_a_release_can_be_installed(service: Service) -> None:
    command = ["python3", service.script, "deploy", service.artifact("second")]

    result = service.machine.run("env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command, timeout=DEPLOY_PATIENCE)

    assert result.returncode == 0, result.stdout + result.stderr
    assert service.machine.path(f"{service.root}/releases/{service.live()}/.venv/bin/pip").exists()
    assert service.serving() == service.live()


def test_the_units_are_confined_where_they_run(service: Service) -> None:
    pid = service.machine.run("systemctl", "show", "-P", "MainPID", f"my_service@{service.live()}").stdout.strip()
    known = service.machine.run("cat", f"/proc/{pid}/status", f"/proc/{pid}/limits").stdout
    for pattern in (r"CapEff:\t0+\n", r"NoNewPrivs:\t1\n", r"Seccomp:\t2\n", r"Max core file size +0 +0 "):
        assert re.search(pattern, known), pattern
