"""`release.py doctor`, as far as anybody can ask it: files, links, and what servers on this machine answer."""

import grp
import json
import os
import pwd
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from config import ROOT, AppDir
from deploy import doctor
from deploy.doctor import CHECKS, Finding, Skipped
from deploy.installation import Failure, Site

NAME = "20261120120000"
USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
HOST = "blog.example.com"
PAGE = (ROOT / "docs/production.md").read_text(encoding="utf-8")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An installation whose live release is this project, all of it in the hands of whoever runs the tests."""
    monkeypatch.setattr(doctor, "ADMIN", os.geteuid())
    monkeypatch.setattr(doctor, "WEB_SERVER", USER)
    # Addresses of sockets are short, so pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="doctor-", dir="/tmp") as place:
        site = Site("my_service", host=HOST, user=USER, group=GROUP, root=Path(place, "my_service"))
        folder = site.releases / NAME
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / "main.py").symlink_to(ROOT / "main.py")
        for file in ("RELEASE", "LIVE", "release.json"):
            (folder / file).write_text(f"{NAME}\n")
        (folder / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / ".venv/bin/gunicorn").write_text(f"#!{folder}/.venv/bin/python\n")
        for script in (folder / ".venv/bin").iterdir():
            script.chmod(0o755)
        site.link.symlink_to(f"releases/{NAME}")
        (site.root / "venv").symlink_to("app/.venv")
        site.run.mkdir()
        AppDir(site.shared).make(USER, GROUP)
        yield site


def found(check: str, site: Site) -> str:
    with pytest.raises(Finding) as raised:
        CHECKS[check][0](site)
    return str(raised.value)


def passes(check: str, site: Site) -> bool:
    return isinstance(CHECKS[check][0](site), str)


def test_the_page_explains_each_check_and_no_other() -> None:
    table = PAGE[PAGE.index("| line | is about") :].split("\n\n")[0]
    assert re.findall(r"(?m)^\| ([^|]+?) +\|", table)[1:] == list(CHECKS)


def test_without_an_installation_it_is_one_line_and_exit_2() -> None:
    command = [sys.executable, str(ROOT / "deploy/release.py"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def test_a_good_installation_passes_what_anybody_can_ask(site: Site) -> None:
    for check in ("app folder", "code", "release", "packages", "upload limit"):
        assert passes(check, site), check


def test_each_line_has_what_mends_it_and_the_others_run_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(error: Exception) -> Callable[[Site], str]:
        def raising(_: Site) -> str:
            raise error

        return raising

    checks = {
        "a": (check(Finding("wrong\n\x1b[2J")), "`mend {site.slug}`"),
        "b": (check(Skipped("nothing")), "`b`"),
        "c": (check(KeyError("c")), "`python main.py x`"),
        "d": (lambda _: "good", ""),
    }
    monkeypatch.setattr(doctor, "CHECKS", checks)
    site.link.unlink()
    assert [tuple(row.values()) for row in doctor.examine(site)] == [
        ("a", False, "wrong \N{REPLACEMENT CHARACTER}[2J; `mend my_service`"),
        ("b", None, "nothing"),
        ("c", False, "KeyError: 'c'; `my_service x`"),
        ("d", True, "good"),
    ]


@pytest.mark.slow
def test_the_services_own_lines_come_last(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {})
    rows = {row["name"]: row for row in doctor.examine(site)}
    assert rows["service: app folder"]["ok"] is True
    assert "my_service db upgrade" in rows["service: migrations"]["detail"]
    (site.link / ".venv/bin/python").unlink()
    assert [(row["name"], row["ok"]) for row in doctor.examine(site)] == [("service: check", False)]


def test_an_open_secret_names_the_command_that_closes_it(site: Site) -> None:
    (site.shared / ".env").chmod(0o644)
    assert "run `python main.py appdir make --path" in found("app folder", site)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_code_that_others_can_change_is_found(site: Site, mode: int) -> None:
    (site.releases / NAME / "RELEASE").chmod(mode)
    assert "RELEASE: others than root can change it" in found("code", site)


def test_a_folder_that_others_can_change_is_found(site: Site) -> None:
    (site.releases / NAME / ".venv").chmod(0o777)
    assert "others than root" in found("code", site)


@pytest.mark.parametrize(
    ("target", "expected"),
    [(None, "leads to no release"), ("{root}/releases/" + NAME, "expected one of"), ("releases/2", "no whole release")],
)
def test_a_link_that_leads_elsewhere_is_found(site: Site, target: str | None, expected: str) -> None:
    site.link.unlink()
    if target:
        site.link.symlink_to(target.format(root=site.root))
    assert expected in found("release", site)


@pytest.mark.parametrize("mark", ["LIVE", "BAD"])
def test_a_release_that_never_served_or_was_given_up_is_found(site: Site, mark: str) -> None:
    path = site.releases / NAME / mark
    path.unlink() if path.exists() else path.touch()
    assert "has never served, or was given up" in found("release", site)


def test_packages_of_another_release_are_found(site: Site) -> None:
    script = site.link / ".venv/bin/gunicorn"
    script.write_text("#!/srv/my_service/releases/1/.venv/bin/python\n")
    assert "expected its own Python" in found("packages", site)
    (site.root / "venv").unlink()
    assert "expected a link to app/.venv" in found("packages", site)


def test_folders_are_compared_with_tmpfiles(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"# folders\nd {site.run} 0755 {USER} {GROUP}\nL {site.root}/venv - - - - app/.venv\n"
    monkeypatch.setattr(doctor, "render", lambda _: {Path("/etc/tmpfiles.d/my_service.conf"): text})
    site.run.chmod(0o755)
    assert passes("folders", site)
    site.run.chmod(0o700)
    assert found("folders", site) == f"{site.run}: mode 0700, expected 0755"


def test_files_that_somebody_changed_are_named(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {tmp_path / "a": "a", tmp_path / "b": "b"}
    monkeypatch.setattr(doctor, "render", lambda _: files)
    (tmp_path / "a").write_text("a")
    assert found("written files", site) == f"not as they were written: {tmp_path / 'b'}"
    (tmp_path / "b").write_text("b")
    assert passes("written files", site)


def test_a_socket_that_nobody_listens_on_is_found(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.socket))
        site.socket.chmod(0o660)
        assert "nobody listens" in found("socket", site)
        listener.listen()
        assert passes("socket", site)
        site.socket.chmod(0o666)
        assert "mode 0660" in found("socket", site)


@pytest.mark.slow
def test_an_upload_limit_below_the_services_own_is_found(site: Site) -> None:
    small = Site("my_service", upload_limit="4m", root=site.root, user=USER, group=GROUP)
    assert found("upload limit", small) == "upload_limit: found 4m, expected 5000000 bytes or more"
    (site.shared / ".env").write_text("broken\n")
    with pytest.raises(Skipped):
        CHECKS["upload limit"][0](site)


def test_the_last_deploy_is_told_and_no_link_is_followed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Skipped):
        CHECKS["last command"][0](site)
    log = site.shared / "logs/deploy.jsonl"
    lines = [{"command": "deploy", "at": "1", "ok": True}, {"command": "prune", "at": "2", "ok": False}]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert CHECKS["last command"][0](site) == "deploy of 1"
    with log.open("a") as file:
        file.write('{"command": "rollback", "at": "3", "ok": false, "error": "why"}\n')
    assert found("last command", site) == "rollback of 3: why"
    log.rename(tmp_path / "log")
    log.symlink_to(tmp_path / "log")
    with pytest.raises(Failure, match="cannot be read"):
        CHECKS["last command"][0](site)


def test_an_answer_has_to_be_good_and_of_the_live_release(site: Site) -> None:
    def ready(status: int, **answer: object) -> str:
        return doctor.require_ready(site, status, json.dumps(answer).encode())

    assert ready(200, release=NAME, checks={"database": "ok"}) == f"{NAME} is ready"
    with pytest.raises(Finding, match="release 1, expected"):
        ready(200, release="1", checks={})
    with pytest.raises(Finding, match="status 503, storage: failed"):
        ready(503, release=NAME, checks={"storage": "failed", "queue": "ok"})
    with pytest.raises(Finding, match="status 502"):
        doctor.require_ready(site, 502, b"<html>")


class WebServer(BaseHTTPRequestHandler):
    """Stands in for nginx: `answers` are by host and path, and who asks for something else is not answered."""

    answers: dict[tuple[str, str], tuple[int, str]]

    def do_GET(self) -> None:
        """Send what there is."""
        if (self.headers["Host"], "") not in self.answers:
            return
        status, etag = self.answers.get((self.headers["Host"], self.path), (404, ""))
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the base class)
        """Stay quiet."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a web server, which is found whatever port is asked for."""
    connect = socket.create_connection

    @contextmanager
    def serve(answers: dict[tuple[str, str], tuple[int, str]], context: ssl.SSLContext | None = None) -> Iterator[None]:
        handler = type("Answers", (WebServer,), {"answers": {(HOST, ""): (0, ""), **answers}})
        with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
            address = server.socket.getsockname()
            if context:
                server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            with monkeypatch.context() as patched:
                patched.setattr(socket, "create_connection", lambda _, *more: connect(address, *more[:1]))
                try:
                    yield
                finally:
                    server.shutdown()
                    thread.join()

    return serve


def test_a_page_under_another_name_is_found(site: Site, serve: Callable[..., Any]) -> None:
    with serve({}):
        assert passes("other hosts", site)
    with serve({("unknown.invalid", ""): (0, ""), ("unknown.invalid", "/"): (200, "")}):
        assert "got status 200" in found("other hosts", site)


def test_each_leak_is_found(site: Site, serve: Callable[..., Any]) -> None:
    with serve({}):
        assert passes("leaks", site)
    for path in doctor.LEAKS:
        with serve({(HOST, path): (200, "")}):
            assert found("leaks", site) == f"{path}: got status 200"


def test_media_have_to_come_from_the_folder_itself(site: Site, serve: Callable[..., Any]) -> None:
    with pytest.raises(Skipped):
        CHECKS["media"][0](site)
    (site.shared / "media/.partial").mkdir()
    (site.shared / "media/.partial/a").touch()
    (site.shared / "media/link").symlink_to("/etc/passwd")
    with pytest.raises(Skipped):
        CHECKS["media"][0](site)
    file = site.shared / "media/ä b.png"
    file.write_bytes(b"12345")
    os.utime(file, (255, 255))
    with serve({(HOST, "/media/%C3%A4%20b.png"): (200, '"ff-5"')}):
        assert passes("media", site)
    with serve({(HOST, "/media/%C3%A4%20b.png"): (200, '"made by the service"')}):
        assert "expected the file" in found("media", site)
    with serve({}):
        assert "got status 404" in found("media", site)


def certificate(folder: Path, host: str, days: int) -> Path:
    """A file with a certificate of that host, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{host}-{days}.pem"
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@pytest.mark.parametrize(
    ("in_file", "served", "expected"),
    [
        ((HOST, 90), (HOST, 90), None),
        ((HOST, 5), (HOST, 5), "ends in 5 days"),
        (("other.example.com", 90), ("other.example.com", 90), "not valid for"),
        ((HOST, 90), (HOST, 30), "nginx serves another one"),
    ],
)
def test_a_certificate_has_to_be_served_fit_and_last(
    site: Site,
    serve: Callable[..., Any],
    tmp_path: Path,
    in_file: tuple[str, int],
    served: tuple[str, int],
    expected: str | None,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    path = certificate(tmp_path, *in_file)
    context.load_cert_chain(path if served == in_file else certificate(tmp_path, *served))
    tls = Site("my_service", host=HOST, certificate=str(path), root=site.root)
    with serve({}, context):
        if expected:
            assert expected in found("certificate", tls)
        else:
            assert passes("certificate", tls)
        assert passes("leaks", tls)


def test_a_renewed_certificate_that_nginx_has_not_read_is_found(
    site: Site, serve: Callable[..., Any], tmp_path: Path
) -> None:
    old, new = certificate(tmp_path, HOST, 30), certificate(tmp_path, HOST, 90)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(old)
    # Whoever has signed both of them is in the file as well; here each has signed itself.
    new.write_bytes(new.read_bytes() + old.read_bytes())
    with serve({}, context):
        tls = Site("my_service", host=HOST, certificate=str(new), root=site.root)
        assert found("certificate", tls) == f"{new}: nginx still serves another one"


def test_without_a_certificate_there_is_nothing_to_check(site: Site) -> None:
    with pytest.raises(Skipped):
        CHECKS["certificate"][0](site)
