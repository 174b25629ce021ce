"""Storages of every kind; S3 is moto's server on this machine."""

import errno
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import obstore
import pytest

from storage import Storage, objects


class OneAtATime:
    """A WSGI application that answers one request at a time. Moto looks first and then writes; S3 does both at once."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, *arguments: object) -> Any:
        with self.lock:
            return self.app(*arguments)


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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for servers on a busy machine."""
    monkeypatch.setitem(objects.CHECK_TIMEOUTS, "connect_timeout", "30s")
    monkeypatch.setitem(objects.CHECK_TIMEOUTS, "timeout", "60s")


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
    """Makes the URL of a storage that was never written; the server starts when the first one needs it."""

    def url(scheme: str) -> str:
        match scheme:
            case "file":
                return (tmp_path_factory.mktemp("file") / "files").as_uri()
            case "s3":
                return s3_url(request.getfixturevalue("s3_endpoint"), secrets.token_hex(8))
        return "memory://"

    return url


@pytest.fixture(params=["file", "file without hard links", "memory", "s3"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file without hard links":
        monkeypatch.setattr(os, "link", _fail)
    return str(request.param).split()[0]


def _fail(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture
def storage(scheme: str, new_url: Callable[[str], str]) -> Storage:
    return Storage(new_url(scheme))


@pytest.fixture(scope="session")
def kept() -> Callable[[Storage], list[str]]:
    """Lists everything that a storage keeps, also what it does not show."""

    def kept(storage: Storage) -> list[str]:
        backend: Any = storage.backend
        if hasattr(backend, "root"):
            places = Path(backend.root).rglob("*")
            return sorted(str(place.relative_to(backend.root)) for place in places if not place.is_dir())
        return [found["path"] for chunk in obstore.list(backend.store) for found in chunk]

    return kept
