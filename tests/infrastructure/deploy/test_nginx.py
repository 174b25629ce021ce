"""A real nginx with the rendered site, and behind it the service in gunicorn on its Unix socket."""

import http.client
import itertools
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import svcs

from app import create_app
from app.request_hooks import FORM_AROUND_FILE
from config import ROOT, AppDir, Settings, load
from deploy.release import render
from storage.disks import Disks
from tests.conftest import SECRET
from tests.infrastructure.deploy.sites import make_site
from tests.infrastructure.servers import HOST, Server, find, free_port, running

for program, package in {"nginx": "nginx", "openssl": "openssl"}.items():
    if not find(program):
        pytest.skip(f"needs {program}: apt install {package}", allow_module_level=True)

pytestmark = pytest.mark.slow
NAME, TLS_NAME = "shop.test", "tls.test"
LEAK = "password-of-somebody"
PICTURE = b"\x89PNG of nobody"
FILES = {
    ".env": f"SECRET_KEY={SECRET}\nPASSWORD={LEAK}\n".encode(),
    "config/hidden.txt": LEAK.encode(),
    "static/1a2b3c4d/style.css": b"p { color: red }",
    "static/1a2b3c4d/.hidden": LEAK.encode(),
    "media/a.png": PICTURE,
    **{
        f"media/a.{suffix}": b"alert(1)"
        for suffix in ("html", "svg", "js", "mjs", "pdf", "xhtml", "xml", "css", "wasm")
    },
    "media/no suffix": b"<script>alert(1)</script>",
    "media/.partial/b.png": LEAK.encode(),
    "data/uploads/report ü.pdf": b"a report",
    "data/exports/posts.csv": b"title",
    "data/batches/one.txt": b"one",
}


class Gunicorn(Server):
    """The service as its unit starts it, but for systemd's socket; its folder is the installation."""

    programs: ClassVar = {}
    scheme = "http"
    username = ""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.site = make_site(root=self.folder, host=NAME)
        unit = render(self.site)[Path("/etc/systemd/system/shop@.service")]
        lines = [line for line in unit.splitlines() if line.startswith("Environment=")]
        variables = [pair for line in lines for pair in shlex.split(line.removeprefix("Environment="))]
        self.environment |= dict(pair.split("=", 1) for pair in variables)
        self.options["cwd"] = ROOT
        self.database = database

    def prepare(self) -> None:
        """Make an app folder with something in every place."""
        folder = AppDir(self.site.shared)
        (self.site.root / "run").mkdir()
        folder.make()
        shutil.copyfile(self.database, folder.database)
        for name, data in FILES.items():
            path = folder.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        # The unit has the first name; the app folder's file wins.
        (folder.path / "config/security.yaml").write_text(f"trusted_hosts: [{NAME}, {TLS_NAME}]\n")
        (folder.path / "media/link.png").symlink_to("../.env")
        (folder.path / "media/out").symlink_to("..")

    def command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "gunicorn",
            "--bind",
            f"unix:{self.site.root}/run/gunicorn.sock",
            "--workers",
            "1",
            "web:app",
        ]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.site.root / "run/gunicorn.sock")) == 0


class Nginx(Server):
    """nginx with these files in its `http`, on ports of its own."""

    programs: ClassVar = {"nginx": "nginx"}
    # Without its master, the workers would go on.
    kill_signal = signal.SIGTERM
    scheme = "http"
    username = ""

    def __init__(self, *files: str) -> None:
        super().__init__()
        self.tls_port = free_port()
        self.certificate, self.key = self.folder / "fullchain.pem", self.folder / "privkey.pem"
        self.files = files

    def prepare(self) -> None:
        self.run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={TLS_NAME}", "-days", "2", "-out", str(self.certificate), "-keyout", str(self.key)),
            *("-addext", f"subjectAltName=DNS:{TLS_NAME}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        lines = [
            *(["user root;"] if os.geteuid() == 0 else []),
            *("daemon off;", f"pid {self.folder}/pid;", "error_log stderr;", "events {}", "http {"),
            *("include /etc/nginx/mime.types;", "default_type application/octet-stream;", "access_log off;"),
            *(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds),
            *(self.on_own_ports(text) for text in self.files),
            "}",
        ]
        (self.folder / "nginx.conf").write_text("\n".join(lines) + "\n")

    def on_own_ports(self, text: str) -> str:
        """The text of a file, with loopback in the place of all addresses, and the test's certificate."""
        lines = [line for line in text.splitlines() if "listen [::]" not in line]
        text = "\n".join(lines).replace("listen 80", f"listen {HOST}:{self.port}")
        text = text.replace("/etc/ssl/shop", str(self.folder))
        return text.replace("listen 443", f"listen {HOST}:{self.tls_port}")

    def command(self) -> list[str]:
        return ["nginx", "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((HOST, self.port)) == 0

    def ask(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        tls: bool = False,
    ) -> "Answer":
        """Send a request for a path as it is, by default for the name of the site without or with TLS."""
        connection: http.client.HTTPConnection
        if tls:
            context = ssl.create_default_context(cafile=str(self.certificate))
            connection = NamedConnection(HOST, self.tls_port, context=context, timeout=10)
        else:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Host": TLS_NAME if tls else NAME} | (headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


class NamedConnection(http.client.HTTPSConnection):
    """Asks for the name in the certificate, wherever that is."""

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=TLS_NAME)  # type: ignore[attr-defined]


class Answer:
    """An answer of nginx."""

    def __init__(self, status: int, headers: Any, data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data


@pytest.fixture(scope="module")
def service(migrated_database: Path) -> Iterator[Gunicorn]:
    """The service."""
    yield from running(Gunicorn(migrated_database))


@pytest.fixture(scope="module")
def nginx(service: Gunicorn) -> Iterator[Nginx]:
    """nginx with the site twice, without and with TLS, as those of two services on one host."""
    site, folder = service.site, Path("/etc/nginx/conf.d")
    tls = make_site("tls", site.root, host=TLS_NAME, certificate="/etc/ssl/shop")
    plain, encrypted = render(site), render(tls)
    yield from running(
        Nginx(plain[folder / "shop.conf"], encrypted[folder / "tls.conf"], plain[folder / "default-closed.conf"])
    )


@pytest.fixture(scope="module")
def link(service: Gunicorn) -> Iterator[Callable[[str, str], str]]:
    """Signed links, as the service makes them."""
    settings = load({"APP_ENV": "production", "APP_DIR": str(service.site.shared)})
    app = create_app(settings)
    with app.app_context():
        yield lambda disk, path: svcs.flask.get(Disks)[disk].url(path, expires=timedelta(hours=1))
    svcs.flask.close_registry(app)


def test_nginx_has_nothing_to_say_about_the_site(nginx: Nginx) -> None:
    output = nginx.run("nginx", "-t", *nginx.command()[1:])
    assert [line for line in output.splitlines() if "syntax is ok" not in line and "is successful" not in line] == []


@pytest.mark.skipif(not Path(sys.executable).with_name("gixy").exists(), reason="needs gixy: make setup")
def test_gixy_finds_no_fault_in_the_site(nginx: Nginx) -> None:
    command = [str(Path(sys.executable).with_name("gixy")), str(nginx.folder / "nginx.conf")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("tls", [False, True])
def test_pages_come_from_the_service(nginx: Nginx, tls: bool) -> None:
    page = nginx.ask("/", tls=tls)
    assert page.status == 200
    assert b"<h1" in page.data
    assert page.headers.get_all("Strict-Transport-Security") == ["max-age=31536000; includeSubDomains"]
    assert page.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert [text.count("script-src 'self'") for text in page.headers.get_all("Content-Security-Policy")] == [1]
    assert nginx.ask("/readyz", tls=tls).status == 200
    assert nginx.ask("/nowhere", tls=tls).status == 404


def test_the_service_answers_to_the_names_of_the_site_alone(nginx: Nginx, service: Gunicorn) -> None:
    """Behind nginx too, should another server of it lead to the socket."""

    def ask(host: str) -> int:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(service.site.root / "run/gunicorn.sock"))
            client.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return int(client.recv(99).split()[1])

    assert [ask(name) for name in (NAME, f"{NAME}:80", TLS_NAME, "evil.test", "localhost")] == [200, 200, 200, 400, 400]


def test_assets_come_from_nginx_and_those_it_does_not_have_from_the_service(nginx: Nginx) -> None:
    for tls in (False, True):
        versioned = nginx.ask("/static/style.css?v=1a2b3c4d", {"X-Forwarded-Proto": "https"}, tls=tls)
        assert (versioned.status, versioned.data) == (200, b"p { color: red }")
        expected = {
            "Content-Type": "text/css",
            "Cache-Control": "public, max-age=31536000, immutable",
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
            "X-Content-Type-Options": "nosniff",
        }
        assert {name: versioned.headers[name] for name in expected} == expected
    assert "Strict-Transport-Security" not in nginx.ask("/static/style.css?v=1a2b3c4d").headers
    for query in ("", "?v=", "?v=00000000", "?v=../config", "?v=1A2B3C4D", "?v=1a2b3c4d%0a"):
        plain = nginx.ask(f"/static/style.css{query}")
        assert plain.data == (ROOT / "app/static/style.css").read_bytes(), query
        assert plain.headers["Cache-Control"] == "no-cache"
    missing = nginx.ask("/static/nowhere.css?v=1a2b3c4d")
    assert missing.status == 404
    assert "immutable" not in missing.headers["Cache-Control"]


OWN_HEADERS = {
    "Content-Security-Policy": ["default-src 'none'; frame-ancestors 'none'"],
    "Strict-Transport-Security": ["max-age=31536000; includeSubDomains"],
    "X-Content-Type-Options": ["nosniff"],
}


def own_headers(answer: Answer) -> dict[str, list[str]]:
    return {name: answer.headers.get_all(name, []) for name in OWN_HEADERS}


def test_nginx_own_answers_have_headers_that_forbid_everything(nginx: Nginx) -> None:
    answers = [
        (200, nginx.ask("/static/style.css?v=1a2b3c4d", tls=True)),
        (400, nginx.ask("/", {"X-Large": "a" * 10_000}, tls=True)),
        (404, nginx.ask("/.env", tls=True)),
        (413, nginx.ask("/", {"Content-Length": "9999999999"}, method="POST", tls=True)),
    ]
    assert [(answer.status, own_headers(answer)) for _, answer in answers] == [
        (code, OWN_HEADERS) for code, _ in answers
    ]
    # Over plain HTTP, Strict-Transport-Security would mean nothing, and before nginx knows the name it sends none.
    plain = {**OWN_HEADERS, "Strict-Transport-Security": []}
    answers = [
        (301, nginx.ask("/", {"Host": TLS_NAME})),
        (404, nginx.ask("/.env")),
        (414, nginx.ask(f"/{'a' * 10_000}")),
        (421, nginx.ask("/", {"Host": "other.test"}, tls=True)),
    ]
    assert [(answer.status, own_headers(answer)) for _, answer in answers] == [(code, plain) for code, _ in answers]
    sandboxed = {**OWN_HEADERS, "Content-Security-Policy": ["default-src 'none'; sandbox"]}
    answers = [(403, nginx.ask("/media/", tls=True)), (405, nginx.ask("/media/a.png", method="POST", tls=True))]
    assert [(answer.status, own_headers(answer)) for _, answer in answers] == [(code, sandboxed) for code, _ in answers]


def test_nginx_has_the_same_headers_while_no_service_runs(tmp_path: Path) -> None:
    site = render(make_site(root=tmp_path, host=NAME))
    for nginx in running(Nginx(site[Path("/etc/nginx/conf.d/shop.conf")])):
        answer = nginx.ask("/", {"X-Forwarded-Proto": "https"})
        assert (answer.status, own_headers(answer)) == (502, OWN_HEADERS)


def test_users_files_are_shown_or_saved_and_never_run(nginx: Nginx) -> None:
    picture = nginx.ask("/media/a.png", {"X-Forwarded-Proto": "https"})
    assert (picture.status, picture.data) == (200, PICTURE)
    assert "Content-Disposition" not in picture.headers
    saved = [name for name in FILES if name.startswith("media/") and name != "media/a.png" and "/." not in name]
    pages = [nginx.ask(f"/{name.replace(' ', '%20')}", tls=True) for name in saved]
    for page in pages:
        assert page.status == 200
        assert page.headers["Content-Disposition"] == "attachment"
        # With any other type, a page of the service would run it as a script, or take it as a style sheet.
        assert page.headers["Content-Type"] == "application/octet-stream"
    assert len(pages) == 10
    for answer in (picture, *pages):
        assert own_headers(answer) == {**OWN_HEADERS, "Content-Security-Policy": ["default-src 'none'; sandbox"]}


# What would lead out of `static` and `media`, or to what is hidden in them.
PROBES = [
    "/.env",
    "/../.env",
    "/%2e%2e/.env",
    "/.git/config",
    "/config/hidden.txt",
    "/static../.env",
    "/static/../.env",
    "/static//../.env",
    "/static/%2e%2e/.env",
    "/static/..%5c.env",
    "/static../config/hidden.txt",
    "/media../.env",
    "/media/../.env",
    "/media/..%2f.env",
    "/media/link.png",
    "/media/out/config/hidden.txt",
    "/static/.hidden?v=1a2b3c4d",
    "/static/.env?v=..",
    "/static/hidden.txt?v=../config",
    "/media/.partial/b.png",
    "/static",
    "/static/",
    "/media",
    "/media/",
    "/protected../.env",
    "/protected/media/../../.env",
    "/protected/media/a.png",
    "/protected/default/report%20%C3%BC.pdf",
    "/protected/",
    "/protected/media/",
]


@pytest.mark.parametrize("path", PROBES)
def test_nothing_leaks(nginx: Nginx, path: str) -> None:
    for tls in (False, True):
        answer = nginx.ask(path, tls=tls)
        assert answer.status in (400, 403, 404), path
        assert LEAK.encode() not in answer.data
        assert PICTURE not in answer.data


def test_the_probes_find_the_usual_mistake(service: Gunicorn) -> None:
    """A location without its last slash hands out whatever lies beside the folder."""
    shared = service.site.shared
    location = f"location /static {{ alias {shared}/static/; }}"
    for nginx in running(Nginx(f"server {{ listen 80; server_name {NAME}; {location} }}")):
        leaks = [path for path in PROBES if LEAK.encode() in nginx.ask(path).data]
        assert "/static../.env" in leaks


@pytest.mark.parametrize(
    ("disk", "path", "data", "disposition"),
    [
        ("media", "a.png", PICTURE, "inline; filename=a.png"),
        ("default", "report ü.pdf", b"a report", "attachment; filename*=UTF-8''report%20%C3%BC.pdf"),
        ("exports", "posts.csv", b"title", "attachment; filename=posts.csv"),
        ("batches", "one.txt", b"one", "inline; filename=one.txt"),
    ],
)
def test_nginx_sends_what_a_link_allows(
    nginx: Nginx, link: Callable[[str, str], str], disk: str, path: str, data: bytes, disposition: str
) -> None:
    for tls in (False, True):
        answer = nginx.ask(link(disk, path), {"X-Request-ID": "abc-1", "X-Forwarded-Proto": "https"}, tls=tls)
        assert (answer.status, answer.data) == (200, data)
        assert "X-Accel-Redirect" not in answer.headers
        expected = {
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
            "X-Content-Type-Options": "nosniff",
            "X-Request-ID": "abc-1",
        }
        assert {name: answer.headers.get_all(name) for name in expected} == {
            name: [value] for name, value in expected.items()
        }
        shown, name = disposition.split("; ")
        assert re.match(f"{shown}; (.*; )?{re.escape(name)}$", answer.headers["Content-Disposition"])
        assert set(answer.headers["Cache-Control"].split(", ")) == {"private", "no-cache"}
        part = nginx.ask(link(disk, path), {"Range": "bytes=1-2"}, tls=tls)
        assert (part.status, part.data) == (206, data[1:3])
        same = nginx.ask(link(disk, path), {"If-None-Match": answer.headers["ETag"]}, tls=tls)
        assert (same.status, same.data) == (304, b"")
        assert nginx.ask(link(disk, path).replace("signature=", "signature=x"), tls=tls).status == 403


def test_uploads_pass_up_to_the_limit(nginx: Nginx, shipped_settings: Settings) -> None:
    largest = shipped_settings.security.max_upload_size + FORM_AROUND_FILE
    for size, passes in ((10_000, True), (2 * largest, False)):
        with socket.create_connection((HOST, nginx.port), 10) as client:
            client.sendall(f"POST /login HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {size}\r\n\r\n".encode())
            if passes:
                client.sendall(b"a" * size)
            # The service refuses a form without a token; nginx refuses before anything is sent.
            assert client.recv(99).startswith(b"HTTP/1.1 400 " if passes else b"HTTP/1.1 413 ")


def test_a_large_request_that_is_refused_gets_the_service_s_answer(nginx: Nginx, shipped_settings: Settings) -> None:
    security = shipped_settings.security
    # Refused for want of a token, and for its size.
    for size, status in {
        security.max_request_size - 100: 400,
        security.max_upload_size + FORM_AROUND_FILE: 413,
    }.items():
        for _ in range(50):
            answer = nginx.ask("/login", method="POST", body=b"a" * size)
            assert (answer.status, "X-Request-ID" in answer.headers) == (status, True)


def test_nobody_is_told_anything_under_another_name(nginx: Nginx) -> None:
    for name in ("other.test", HOST, f"{NAME}.evil.test"):
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            nginx.ask("/", {"Host": name})
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for unknown in ("other.test", None):
        with socket.create_connection((HOST, nginx.tls_port), 10) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain, server_hostname=unknown)
    # Another name on a connection that was made for ours.
    assert nginx.ask("/", {"Host": "other.test"}, tls=True).status == 421


def test_modern_tls_is_spoken_and_no_other(nginx: Nginx) -> None:
    for version, spoken in (("1", False), ("1_1", False), ("1_2", True), ("1_3", True)):
        command = ["s_client", "-connect", f"{HOST}:{nginx.tls_port}", "-servername", TLS_NAME, f"-tls{version}"]
        result = subprocess.run(
            ["openssl", *command, "-cipher", "ALL:@SECLEVEL=0"], input=b"", capture_output=True, timeout=10, check=False
        )
        assert (result.returncode == 0) is spoken, version


def test_plain_http_leads_to_https(nginx: Nginx) -> None:
    answer = nginx.ask("/posts?page=2", {"Host": TLS_NAME})
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{TLS_NAME}/posts?page=2")
    assert nginx.ask("/.well-known/acme-challenge/nothing", {"Host": TLS_NAME}).status == 404
    assert nginx.ask("/.well-known/acme-challenge/nothing").status == 404


def logged(service: Gunicorn, request_id: str) -> list[dict[str, Any]]:
    lines = (service.folder / "log").read_text().splitlines()
    return [entry for line in lines if (entry := json.loads(line)).get("request_id") == request_id]


def test_a_request_keeps_its_name_from_proxy_to_log(nginx: Nginx, service: Gunicorn) -> None:
    assert nginx.ask("/login", {"X-Request-ID": "from-a-proxy.1"}).headers["X-Request-ID"] == "from-a-proxy.1"
    assert logged(service, "from-a-proxy.1")
    made = [nginx.ask("/login", headers).headers["X-Request-ID"] for headers in ({}, {"X-Request-ID": "a b\t" * 9})]
    assert all(len(name) == 32 and int(name, 16) for name in made)
    assert made[0] != made[1]


def test_nobody_can_pretend_to_come_from_elsewhere(nginx: Nginx) -> None:
    """Attempts are counted by address: each of these has another one, if the service believed it."""
    form = nginx.ask("/login")
    token = re.search(rb'name="csrf_token"[^>]*value="([^"]+)"', form.data)
    assert token
    body = b"username=ada&password=wrong&csrf_token=" + token[1]
    statuses = []
    for number in range(20):
        address = f"192.0.2.{number}"
        forged = {"X-Forwarded-For": address, "X-Real-IP": address, "Forwarded": f"for={address}"}
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": form.headers["Set-Cookie"]}
        statuses.append(nginx.ask("/login", forged | kind, method="POST", body=body).status)
    assert (statuses[0], statuses[-1]) == (422, 429)
    assert nginx.ask("/metrics", {"X-Forwarded-For": HOST}).status == 404


@pytest.fixture
def crowded(service: Gunicorn) -> Iterator[Nginx]:
    """nginx that believes the test about where a request comes from: of this machine's own, none is limited."""
    site, folder = render(service.site), Path("/etc/nginx/conf.d")
    named = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Test-Address;"
    yield from running(Nginx(named, site[folder / "shop.conf"], site[folder / "default-closed.conf"]))


@pytest.fixture
def crowd(crowded: Nginx) -> Callable[..., list[int]]:
    """Sends many requests from some addresses."""

    def ask(count: int, *addresses: str, method: str = "GET") -> list[int]:
        names = itertools.cycle(addresses)
        return [crowded.ask("/livez", {"X-Test-Address": next(names)}, method=method).status for _ in range(count)]

    return ask


def test_an_address_has_a_limit_of_requests_and_other_addresses_go_on(crowd: Callable[..., list[int]]) -> None:
    assert crowd(1, "192.0.2.1") == [200]
    assert 429 in crowd(60, "192.0.2.2", method="POST")
    assert crowd(1, "192.0.2.2") == [200]
    assert crowd(1, "192.0.2.3", method="POST") == [405]
    # One network of IPv6, in which everybody has 2^64 addresses; and another one.
    assert 429 in crowd(60, "2001:db8::1", "2001:db8::2:1", "2001:db8:0:0:ffff::", method="POST")
    assert crowd(1, "2001:db8:0:1::1", method="POST") == [405]
    # An address of IPv4, as some proxies write it, is one visitor, whom others have nothing to do with.
    assert 429 in crowd(60, "::ffff:192.0.2.4", "192.0.2.4", method="POST")
    assert crowd(1, "::ffff:192.0.2.5", method="POST") == [405]
    assert 429 not in crowd(60, "127.0.0.1", method="POST")


def test_an_address_has_a_limit_of_connections(crowd: Callable[..., list[int]], crowded: Nginx) -> None:
    head = f"POST /login HTTP/1.1\r\nHost: {NAME}\r\nX-Test-Address: 192.0.2.9\r\nContent-Length: 10\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((HOST, crowded.port), 10)) for _ in range(60)]
        for client in clients:
            client.sendall(head)
        refused = select.select(clients, [], [], 10)[0]
        assert refused
        assert all(client.recv(99).startswith(b"HTTP/1.1 429 ") for client in refused)
        assert crowd(1, "192.0.2.10") == [200]


def test_a_client_that_does_not_finish_its_header_is_sent_away(nginx: Nginx) -> None:
    """Which takes its time; so the test looks at what nginx has read."""
    shown = nginx.run(*nginx.command(), "-T")
    assert shown.count("client_header_timeout 10s;") == 4


def test_a_long_query_is_no_failure_of_the_proxy(nginx: Nginx) -> None:
    for length in (2000, 3500, 3900):
        assert nginx.ask(f"/posts/new?{'x' * length}", tls=True).status in (302, 400), length


@pytest.mark.parametrize("name", ["X-Forwarded-Protocol", "X-Forwarded-Ssl"])
def test_a_client_cannot_say_that_it_speaks_tls_in_another_way(nginx: Nginx, name: str) -> None:
    """gunicorn believes these through a Unix socket, and answers 400 if they contradict each other."""
    for value in ("ssl", "on", "https"):
        assert nginx.ask("/livez", {name: value}).status == 200
