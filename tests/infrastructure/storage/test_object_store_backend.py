"""What only an object store can do wrong."""

import json
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import obstore
import pytest

from storage import NotFound, PermissionDenied, Storage, StorageError, object_store
from storage.backend import SPOOL
from storage.paths import PARTIAL

pytestmark = pytest.mark.slow

LARGE = b"x" * (SPOOL + 1)
SECRETS = ("KEY-1", "SECRET-1", "http", "X-Amz", "AWS4")


class Refusing(BaseHTTPRequestHandler):
    """Answers everything with its server's status and error code."""

    server: "RefusingServer"

    def refuse(self) -> None:
        self.server.requests += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        code = f"<Error><Code>{self.server.code}</Code><Message>not for KEY-1 at {self.path}</Message></Error>".encode()
        body = b"" if self.command == "HEAD" else code
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class RefusingServer(ThreadingHTTPServer):
    daemon_threads = True
    status, code, requests = 403, "AccessDenied", 0


@pytest.fixture
def refusing() -> Iterator[RefusingServer]:
    with RefusingServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def refusing_storage(refusing: RefusingServer, s3_url: Callable[..., str]) -> Storage:
    return Storage(s3_url(f"http://127.0.0.1:{refusing.server_port}", "prefix"))


@pytest.fixture
def storage(new_url: Callable[[str], str]) -> Storage:
    return Storage(new_url("s3"))


@pytest.fixture
def put(storage: Storage, s3_endpoint: str) -> Callable[[str], None]:
    """Puts an object into the bucket, whatever its name, as other programs do."""

    def put(path: str) -> None:
        prefix = storage.backend.store.prefix  # type: ignore[attr-defined]
        with urlopen(Request(f"{s3_endpoint}/bucket/{prefix}/{path}", data=b"", method="PUT")):
            pass

    return put


def all_calls(storage: Storage) -> dict[str, Callable[[], object]]:
    """Every method, each on the path `a`."""
    return {
        "read": lambda: storage.read("a"),
        "open": lambda: storage.open("a"),
        "write": lambda: storage.write("a", b"1"),
        "write a new file": lambda: storage.write("a", b"1", overwrite=False),
        "write a large file": lambda: storage.write("a", LARGE),
        "write a large new file": lambda: storage.write("a", LARGE, overwrite=False),
        "move": lambda: storage.move("a", "b"),
        "copy": lambda: storage.copy("a", "b", overwrite=True),
        "remove": lambda: storage.remove("a"),
        "remove_tree": lambda: storage.remove_tree("a"),
        "exists": lambda: storage.exists("a"),
        "stat": lambda: storage.stat("a"),
        "list": lambda: list(storage.list("a")),
        "list a folder": lambda: list(storage.list("a", recursive=False)),
        "check": storage.check,
    }


def failures(storage: Storage, kind: type[StorageError]) -> dict[str, str]:
    """What every method says that fails, without the path; it tells nobody a secret."""
    found = {}
    for name, call in all_calls(storage).items():
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        text = "".join(traceback.format_exception(caught.value))
        assert not [secret for secret in SECRETS if secret in text]
        path, _, found[name] = str(caught.value).partition(": ")
        assert path == ("." if name == "check" else "a")
    return found


def test_a_bucket_that_does_not_exist_is_said_so(s3_endpoint: str, s3_url: Callable[..., str]) -> None:
    found = failures(Storage(s3_url(s3_endpoint, bucket="none-such")), StorageError)
    assert set(found.values()) == {"the bucket does not exist"}


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_wrong_keys_are_permission_denied(refusing: RefusingServer, refusing_storage: Storage, code: str) -> None:
    refusing.code = code
    found = failures(refusing_storage, PermissionDenied)
    # The answer to HEAD has no text.
    assert set(found.values()) == {f"the store answers {code}", "the store answers 403 Forbidden"}
    assert found["write"] == found["read"] == found["check"] == f"the store answers {code}"


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (301, "PermanentRedirect", "the bucket lies in another region"),
        (400, "InvalidRequest", "the store answers InvalidRequest"),
        (418, "Teapot", "the store answers Teapot"),
    ],
)
def test_an_answer_that_nobody_expects_is_an_error(
    refusing: RefusingServer, refusing_storage: Storage, status: int, code: str, reason: str
) -> None:
    refusing.status, refusing.code = status, code
    found = failures(refusing_storage, StorageError)
    assert found["read"] == found["write"] == found["list"] == reason


def test_a_store_that_fails_is_asked_again_before_it_is_given_up(
    refusing: RefusingServer, refusing_storage: Storage
) -> None:
    refusing.status, refusing.code = 503, "SlowDown"
    for call in (lambda: refusing_storage.read("a"), lambda: refusing_storage.write("a", b"1")):
        refusing.requests = 0
        with pytest.raises(StorageError, match=r"^a: the store answers SlowDown$"):
            call()
        assert refusing.requests == 1 + object_store.RETRIES["max_retries"]


def test_an_address_where_everything_is_not_found_is_no_empty_store(
    refusing: RefusingServer, refusing_storage: Storage
) -> None:
    refusing.status, refusing.code = 404, "NotHere"
    found = failures(refusing_storage, StorageError)
    assert set(found.values()) == {"the store answers NotHere"}


def test_a_store_that_is_down_is_said_so(closed_port: int, s3_url: Callable[..., str]) -> None:
    storage = Storage(s3_url(f"http://127.0.0.1:{closed_port}"))
    for call in (storage.check, lambda: storage.read("a"), lambda: storage.write("a", b"")):
        with pytest.raises(StorageError, match=r"^(\.|a): the store cannot be reached$"):
            call()


def test_a_store_that_does_not_answer_is_given_up(s3_url: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        storage = Storage(s3_url(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout="100ms"))
        for call in (lambda: storage.read("a"), lambda: storage.write("a", b"")):
            with pytest.raises(StorageError, match=r"^a: the store takes too long$"):
                call()


def test_the_local_disk_may_be_full_where_large_files_wait(storage: Storage) -> None:
    storage.write("a", b"old")
    with storage.open("a", "wb") as stream:
        stream.file.rollover()  # type: ignore[attr-defined]
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, stream.file.fileno())  # type: ignore[attr-defined]
        os.close(full)
        with pytest.raises(StorageError, match=r"^a: No space left on device$"):
            stream.write(LARGE)
        stream.discard()  # type: ignore[attr-defined]
    assert storage.read("a") == b"old"


def test_a_link_can_be_followed_until_it_expires(storage: Storage) -> None:
    storage.write("folder/a b+ü%.txt", b"shared")
    link = storage.url("folder/a b+ü%.txt", expires=timedelta(minutes=5))
    with urlopen(link) as answer:
        assert answer.read() == b"shared"
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["300"]
    assert "SECRET-1" not in link
    with pytest.raises(HTTPError, match="404"):
        urlopen(storage.url("none", expires=timedelta(minutes=5)))


def test_objects_of_others_whose_names_are_no_paths_are_not_listed(
    storage: Storage, put: Callable[[str], None]
) -> None:
    storage.write("a", b"1")
    for name in ("back%5Cslash", "zero%E2%80%8Bwidth"):
        put(name)
    for recursive in (True, False):
        assert [entry.path for entry in storage.list(recursive=recursive)] == ["a"]


def test_a_name_that_the_library_cannot_read_is_an_error_that_says_so(
    storage: Storage, put: Callable[[str], None]
) -> None:
    put("folder/a//b")
    with pytest.raises(StorageError, match=r"^folder: an object there has a name that is no path$"):
        list(storage.list("folder"))
    storage.write("a", b"1")
    assert [entry.path for entry in storage.list(recursive=False)] == ["a"]


def test_what_killed_writers_have_left_is_removed_once_it_is_old(
    new_url: Callable[[str], str], kept: Callable[[Storage], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_url("s3")
    left = f"{PARTIAL}/{'0' * 32}"
    first = Storage(url)
    obstore.put(first.backend.store, left, b"half")  # type: ignore[attr-defined]
    first.write("a", LARGE, overwrite=False)
    assert kept(first) == [left, "a"]
    assert [entry.path for entry in first.list()] == ["a"]
    # Nobody can set back the clock of a store; but what counts as old can be changed.
    monkeypatch.setattr(object_store, "ABANDONED", timedelta(seconds=-60))
    first.write("b", LARGE, overwrite=False)
    assert kept(first) == [left, "a", "b"]
    Storage(url).write("c", LARGE, overwrite=False)
    assert kept(first) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("option", "reason"),
    [("none=1", "key: 'none' is not valid"), ("timeout=soon", 'failed to parse "soon" as Duration')],
)
def test_an_option_that_the_store_does_not_know_is_refused(
    s3_url: Callable[..., str], option: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Storage(f"{s3_url('http://127.0.0.1')}&{option}")
    assert "SECRET-1" not in str(caught.value)


def test_keys_are_taken_from_the_environment(
    s3_endpoint: str, s3_url: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY-2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET-2")
    storage = Storage(f"s3://bucket/env?endpoint={s3_endpoint}&region=eu-west-1")
    assert "KEY-2%2F" in storage.url("a", expires=timedelta(minutes=1))
    assert not storage.exists("a")


def test_google_and_azure_go_through_the_same_code() -> None:
    account = {
        "gcs_base_url": "http://127.0.0.1:1",
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    google: Any = Storage(f"gs://bucket/prefix?service_account_key={json.dumps(account)}")
    azure: Any = Storage("az://container/prefix?account_name=name&account_key=a2V5")
    assert (type(google.backend.store).__name__, type(azure.backend.store).__name__) == ("GCSStore", "AzureStore")
    link = urlsplit(azure.url("a", expires=timedelta(minutes=1)))
    assert (link.hostname, link.path) == ("name.blob.core.windows.net", "/container/prefix/a")


def test_a_reader_of_a_missing_file_fails_when_it_is_opened(storage: Storage) -> None:
    with pytest.raises(NotFound, match=r"^a: no such file$"):
        storage.open("a")


def test_the_folders_of_consoles_are_no_files(storage: Storage, put: Callable[[str], None]) -> None:
    put("folder/")
    for path in ("folder/a", "empty", "empty/b"):
        storage.write(path, b"")
    assert [entry.path for entry in storage.list()] == ["empty", "empty/b", "folder/a"]
    assert [entry.path for entry in storage.list("folder")] == ["folder/a"]


def test_an_endpoint_without_its_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^endpoint 'localhost:9000', expected one that begins with https://"):
        Storage("s3://bucket?endpoint=localhost:9000")
