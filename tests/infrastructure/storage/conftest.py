"""Storages of every kind: S3 is moto's server, SFTP is OpenSSH's, both on this machine."""

import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import obstore
import pytest

from storage import Storage
from tests.infrastructure.servers import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SSHD_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp {options}
"""


class Sshd:
    """An SSH server for one user, the one that runs the tests, with keys of its own."""

    def __init__(self, folder: Path, options: str = "") -> None:
        assert SSHD
        self.folder, self.options = folder, options
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)

    @property
    def user(self) -> str:
        return pwd.getpwuid(os.getuid()).pw_name

    def start(self) -> None:
        """Listen: on the port as before, or on a free one. Somebody may take a free port first; then on another."""
        log, config = self.folder / "log", self.folder / "sshd_config"
        listening = "Server listening"
        while not (self.process and self.process.poll() is None and listening in log.read_text()):
            if not self.process or self.process.poll() is not None:
                port = self.port or free_port()
                config.write_text(SSHD_CONFIG.format(port=port, folder=self.folder, options=self.options))
                with log.open("wb") as file:
                    assert SSHD
                    command = [SSHD, "-D", "-e", "-f", str(config)]
                    self.process = subprocess.Popen(command, stderr=file, start_new_session=True)
            time.sleep(0.01)
        self.port = port
        key = (self.folder / "host.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")

    def url(self, folder: Path, **options: object) -> str:
        query = {"key_file": self.folder / "user", "known_hosts": self.folder / "known_hosts", **options}
        parts = "&".join(f"{name}={value}" for name, value in query.items())
        return f"sftp://{self.user}@127.0.0.1:{self.port}{folder}?{parts}"

    def kill(self) -> None:
        """End it and its connections, which are processes that lead groups of their own, at once."""
        if self.process and self.process.poll() is None:
            for pid in [*_descendants(self.process.pid), self.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


class OneAtATime:
    """A WSGI application with no other request meanwhile. Moto looks first and then writes; S3 does both at once."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, *arguments: object) -> Any:
        with self.lock:
            return self.app(*arguments)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (*_descendants(child), child)]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, nor can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts SSH servers that a test may break."""
    made: list[Sshd] = []

    def make(options: str = "") -> Sshd:
        if not SSHD:
            pytest.skip("needs OpenSSH's sshd: apt-get install openssh-server")
        folder = tmp_path / f"sshd-{len(made)}"
        folder.mkdir()
        made.append(Sshd(folder, options))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The SSH server that most tests share."""
    if not SSHD:
        pytest.skip("needs OpenSSH's sshd: apt-get install openssh-server")
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server that has a bucket named `bucket`."""
    from moto.server import ThreadedMotoServer

    requests = logging.getLogger("werkzeug")
    level = requests.level
    requests.setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    assert server._server
    server._server.app = OneAtATime(server._server.app)
    host, port = server.get_host_and_port()
    with urlopen(Request(f"http://{host}:{port}/bucket", method="PUT")):
        yield f"http://{host}:{port}"
    server.stop()
    requests.setLevel(level)


@pytest.fixture(scope="session")
def s3_url() -> Callable[..., str]:
    """Makes the URL of a storage on an S3 server."""

    def url(endpoint: str, prefix: str = "", bucket: str = "bucket", **options: str) -> str:
        query = {"endpoint": endpoint, "region": "us-east-1", "access_key_id": "KEY-1", "secret_access_key": "SECRET-1"}
        parts = "&".join(f"{name}={value}" for name, value in {**query, **options}.items())
        return f"s3://{bucket}/{prefix}?{parts}"

    return url


@pytest.fixture(scope="session")
def new_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3_url: Callable[..., str]
) -> Callable[[str], str]:
    """Makes the URL of a storage that was never written; servers are started when the first one needs them."""

    def url(scheme: str) -> str:
        match scheme:
            case "file":
                return (tmp_path_factory.mktemp("file") / "files").as_uri()
            case "s3":
                return s3_url(request.getfixturevalue("s3_endpoint"), secrets.token_hex(8))
            case "sftp":
                server: Sshd = request.getfixturevalue("sshd")
                return server.url(tmp_path_factory.mktemp("sftp") / "files")
        return "memory://"

    return url


@pytest.fixture(
    params=["file", "memory", pytest.param("s3", marks=pytest.mark.slow), pytest.param("sftp", marks=pytest.mark.slow)]
)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def storage(scheme: str, new_url: Callable[[str], str]) -> Storage:
    return Storage(new_url(scheme))


@pytest.fixture(scope="session")
def kept() -> Callable[[Storage], list[str]]:
    """Lists all files that a storage keeps, also those that it shows to nobody."""

    def kept(storage: Storage) -> list[str]:
        backend: Any = storage.backend
        match type(backend).__name__:
            case "FileBackend" | "SftpBackend":
                files = (path for path in Path(backend.root).rglob("*") if not path.is_dir())
                return sorted(str(path.relative_to(backend.root)) for path in files)
            case "ObjectStoreBackend":
                return [found["path"] for chunk in obstore.list(backend.store) for found in chunk]
        return sorted(backend.files)

    return kept
