"""What can be stored can be served: links of all names, through gunicorn alone and through nginx before it."""

import http.client
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import svcs

from app import create_app
from config import ROOT, AppDir, load
from storage.disks import Disks
from storage.paths import LONGEST_PATH
from tests.conftest import SECRET
from tests.infrastructure.servers import HOST, Server, find, running

NAMES = [
    "a b",
    " ",
    " leading and trailing ",
    ".hidden",
    ".well-known/a",
    "folder/.hidden/a",
    "...",
    "..a",
    "100%",
    "%2e%2e",
    "%2F%00%",
    "what?",
    "?a=b&c=d",
    "no#1",
    "a+b&c=d;e,f:g@h$i!j",
    "\"'<>|`(){}[]^~*",
    "-rf",
    "größe/日本/😀",
    "e\u0301",
    "👩\u200d👩\u200d👧",
    "index.html",
    "style.css",
    "a" * 255,
    "ü" * 127,
    "/".join(["ü" * 127] * 4),
    "😀" * 63 + "/" + "x" * 255,
    "a/" * (LONGEST_PATH // 2 - 1) + "bc",
]


class Gunicorn(Server):
    """The service on a socket, as its unit starts it."""

    programs: ClassVar = {}
    scheme = "http"
    username = ""

    def __init__(self, database: Path, accel: str) -> None:
        super().__init__()
        self.database, self.socket = database, self.folder / "run/gunicorn.sock"
        self.app_dir = AppDir(self.folder / "shared")
        self.settings = {
            "APP_ENV": "testing",
            "APP_DIR": str(self.app_dir.path),
            "APP_STORAGE__ACCEL_REDIRECT": accel,
            "SECRET_KEY": SECRET,
        }
        self.environment |= self.settings
        self.options["cwd"] = ROOT

    def prepare(self) -> None:
        self.socket.parent.mkdir()
        self.app_dir.make()
        shutil.copyfile(self.database, self.app_dir.database)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "gunicorn", "--bind", f"unix:{self.socket}", "--workers", "1", "web:app"]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0


class Nginx(Server):
    """nginx with the locations of the site, before that service."""

    programs: ClassVar = {"nginx": "nginx"}
    # Without its master, the worker would go on.
    kill_signal = signal.SIGTERM
    scheme = "http"
    username = ""

    def __init__(self, service: Gunicorn) -> None:
        super().__init__()
        self.root = service.folder

    def prepare(self) -> None:
        user = "user root;" if os.geteuid() == 0 else ""
        maps, locations = ((ROOT / f"deploy/nginx/{name}.conf").read_text() for name in ("maps", "locations"))
        http = f"""
            include /etc/nginx/mime.types; access_log off; proxy_temp_path {self.folder}/proxy;
            map $scheme $<slug>_scheme {{ default $scheme; }}
            {maps}
            server {{ listen {HOST}:{self.port}; {locations} }}
        """
        for name, value in {"<slug>": "shop", "<root>": str(self.root), "<upload_limit>": "1m"}.items():
            http = http.replace(name, value)
        text = f"{user} daemon off; pid {self.folder}/pid; error_log stderr; events {{}} http {{ {http} }}"
        (self.folder / "nginx.conf").write_text(text)

    def command(self) -> list[str]:
        return ["nginx", "-e", "stderr", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((HOST, self.port)) == 0


class SocketConnection(http.client.HTTPConnection):
    """A connection to gunicorn itself."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


@pytest.fixture(scope="module", params=["gunicorn", "nginx"])
def connect(
    request: pytest.FixtureRequest, migrated_database: Path
) -> Iterator[tuple[Gunicorn, Callable[[], http.client.HTTPConnection]]]:
    """The service, and how to connect to what stands before it."""
    if request.param == "gunicorn":
        for service in running(Gunicorn(migrated_database, "")):
            yield service, lambda: SocketConnection(str(service.socket))  # noqa: B023
        return
    if not find("nginx"):
        pytest.skip("needs nginx: apt install nginx")
    for service in running(Gunicorn(migrated_database, "/protected")):
        for nginx in running(Nginx(service)):
            yield service, lambda: http.client.HTTPConnection(HOST, nginx.port)  # noqa: B023


def test_a_link_of_any_name_leads_to_the_file(
    connect: tuple[Gunicorn, Callable[[], http.client.HTTPConnection]],
) -> None:
    service, make_connection = connect
    app = create_app(load(service.settings))
    failures = {}
    with app.app_context():
        disk = svcs.flask.get(Disks)["media"]
        for name in NAMES:
            data = name.encode()
            disk.write(name, data)
            connection = make_connection()
            connection.request("GET", disk.url(name, expires=timedelta(hours=1)))
            answer = connection.getresponse()
            found = answer.status, answer.read()
            connection.close()
            if found != (200, data):
                failures[name] = found
            disk.remove(name)
    svcs.flask.close_registry(app)
    assert failures == {}
