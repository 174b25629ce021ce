"""What only an object store can do wrong."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from obstore.exceptions import BaseError

from storage import NotFound, PermissionDenied, Storage, StorageError, objects
from storage.objects import SPOOL

PROJECT = Path(__file__).parents[3]
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
    """Puts an object into the bucket, whatever its key, as other programs do; a folder is an empty one."""
    from moto.s3.models import s3_backends

    # Its server is in this process. A request for each of a thousand objects would take seconds.
    backend = s3_backends["123456789012"]["aws"]

    def put(key: str) -> None:
        backend.put_object("bucket", f"{storage.backend.prefix}/{key}", b"" if key.endswith("/") else b"1")  # type: ignore[union-attr]

    return put


def paths(storage: Storage, prefix: str = "") -> list[str]:
    return [entry.path for entry in storage.list(prefix)]


def failures(storage: Storage, kind: type[StorageError]) -> dict[str, str]:
    """What every method says that fails, without the path. None of it is a secret."""
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: storage.read("a"),
        "reader": lambda: storage.reader("a"),
        "write": lambda: storage.write("a", b"1"),
        "write a new file": lambda: storage.write("a", b"1", overwrite=False),
        "write a large file": lambda: storage.write("a", LARGE),
        "move": lambda: storage.move("a", "b"),
        "copy": lambda: storage.copy("a", "b", overwrite=True),
        "list": lambda: list(storage.list("a")),
        "check": storage.check,
    }
    found = {}
    for name, call in calls.items():
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        text = "".join(traceback.format_exception(caught.value))
        assert not [secret for secret in SECRETS if secret in text]
        place, _, found[name] = str(caught.value).rpartition(": ")
        assert place.startswith("s3://") if name == "check" else place == "a"
    return found


def test_a_bucket_that_does_not_exist_is_an_error_of_the_storage(s3_endpoint: str, s3_url: Callable[..., str]) -> None:
    found = failures(Storage(s3_url(s3_endpoint, bucket="none-such")), StorageError)
    assert set(found.values()) == {"the store answers NoSuchBucket"}


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_wrong_keys_are_permission_denied(refusing: RefusingServer, refusing_storage: Storage, code: str) -> None:
    refusing.code = code
    assert set(failures(refusing_storage, PermissionDenied).values()) == {f"the store answers {code}"}
    for call in (refusing_storage.stat, refusing_storage.exists, refusing_storage.remove):
        # The answer to HEAD has no text.
        with pytest.raises(PermissionDenied, match=r"^a: the store answers 403 Forbidden$"):
            call("a")


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (301, "PermanentRedirect", "the bucket lies in another region"),
        (400, "InvalidRequest", "the store answers InvalidRequest"),
        (404, "NotHere", "the store answers NotHere"),
        (418, "Teapot", "the store answers Teapot"),
    ],
)
def test_an_unexpected_answer_is_an_error(
    refusing: RefusingServer, refusing_storage: Storage, status: int, code: str, reason: str
) -> None:
    refusing.status, refusing.code = status, code
    assert set(failures(refusing_storage, StorageError).values()) == {reason}


def test_a_store_that_fails_is_asked_again_before_it_is_given_up_but_not_by_a_health_check(
    refusing: RefusingServer, refusing_storage: Storage
) -> None:
    refusing.status, refusing.code = 503, "SlowDown"
    tries = {lambda: refusing_storage.read("a"): 4, lambda: refusing_storage.write("a", b"1"): 4}
    for call, requests in {**tries, refusing_storage.check: 1}.items():
        refusing.requests = 0
        with pytest.raises(StorageError, match=r"^(a|s3://bucket/prefix): the store answers SlowDown$"):
            call()
        assert refusing.requests == requests


def test_a_store_that_is_down_is_an_error(s3_url: Callable[..., str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Nothing listens there, nor can.
        storage = Storage(s3_url(f"http://127.0.0.1:{taken.getsockname()[1]}"))
        for call in (storage.check, lambda: storage.read("a"), lambda: storage.write("a", b"")):
            with pytest.raises(StorageError, match=r"^(s3://bucket/|a): the store fails with (Connect|Request)$"):
                call()


def test_a_store_that_does_not_answer_is_given_up(s3_url: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objects.TIMEOUTS, "read_timeout", "100ms")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        storage = Storage(s3_url(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        for call in (lambda: storage.read("a"), lambda: storage.write("a", b"")):
            with pytest.raises(StorageError, match=r"^a: the store fails with Timeout$"):
                call()


def test_keys_that_are_nowhere_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    text = "Error performing PUT http://169.254.169.254/latest/api/token in 2s - HTTP error: error sending request"
    error = objects._translate("a", BaseError(f"{text}\n\nkind: Connect"))
    assert str(error) == "a: no keys are set, neither in the URL nor in the environment"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # The unfinished temporary file.
def test_the_local_disk_may_be_full_where_files_wait(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("a", b"old")
    storage.write("large", LARGE)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: Path("/dev/full").open("r+b", 0))  # noqa: SIM115
    with pytest.raises(StorageError, match=r"^a: No space left on device$"):
        storage.write("a", LARGE)
    assert storage.stat("a").size == 3
    with pytest.raises(StorageError, match=r"^large: No space left on device$"):
        storage.reader("large")


def test_a_link_can_be_followed_until_it_expires(storage: Storage) -> None:
    storage.write("folder/a b+ü%.txt", b"shared")
    link = storage.url("folder/a b+ü%.txt", expires=timedelta(minutes=5))
    with urlopen(link) as answer:
        assert answer.read() == b"shared"
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["300"]
    assert "SECRET-1" not in link
    with pytest.raises(HTTPError, match="404"):
        urlopen(storage.url("none", expires=timedelta(minutes=5)))


@pytest.mark.parametrize("prefix", ["", "d"])
def test_keys_that_are_no_paths_are_left_out_of_a_listing_that_holds_all_others(
    storage: Storage, put: Callable[[str], None], prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = ["a", "d/a", "d/a+b %.txt", "d/a/b", "d/s", "d/s/x", "d/x", "z"]
    # An answer holds 1,000 keys.
    expected += [f"e/{number:04}" for number in range(1000)] if not prefix else []
    for path in expected:
        put(path)
    expected = sorted(path for path in expected if path.startswith(prefix))
    assert paths(storage, prefix) == expected
    for key in ["d//e", "d/../x", "d/./x", "d/a//b", "d//", "d/..", "d/s//", "/d", "back\\slash", "d/line\u2028break"]:
        put(key)
        if prefix or key == "d//e":
            assert paths(storage, prefix) == expected
            storage.check()
    assert paths(storage, prefix) == expected
    assert "left out of a listing, since it is no path: 'd/a//b'" in caplog.text


FORKED = """
import os, signal, sys
from storage import Storage, StorageError
used, url = Storage(sys.argv[1]), Storage(sys.argv[2])
if sys.argv[3] == "used":
    used.write("a", b"by the parent")
pid = os.fork()
if not pid:
    signal.alarm(20)
    try:
        url.write("a", b"by the child")
        print(url.read("a"))
    except StorageError as error:
        print(error)
    sys.stdout.flush()
    os._exit(0)
sys.exit(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize("used", ["s3", "memory"])
def test_a_process_forked_from_one_that_has_used_a_store_does_not_hang(
    new_url: Callable[[str], str], used: str
) -> None:
    def run(state: str) -> str:
        command = [sys.executable, "-W", "ignore", "-c", FORKED, new_url(used), new_url("s3"), state]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout

    assert run("not used") == "b'by the child'\n"
    assert run("used") == "a: this process was forked from one that had used an object store\n"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("none=1", "key: 'none' is not valid"),
        ("endpoint=localhost:9000", "endpoint 'localhost:9000', expected one that"),
    ],
)
def test_a_wrong_option_is_refused(s3_url: Callable[..., str], option: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Storage(f"{s3_url('http://127.0.0.1')}&{option}")
    assert "SECRET-1" not in str(caught.value)


def test_keys_are_taken_from_the_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_file_that_must_not_be_there_yet_is_refused_whatever_its_size(storage: Storage) -> None:
    storage.write("a", b"1")
    for data in (b"2", LARGE):
        with pytest.raises(StorageError, match=r"^a: exists already$"):
            storage.write("a", data, overwrite=False)
    assert storage.read("a") == b"1"
    with pytest.raises(NotFound, match=r"^none: no such file$"):
        storage.reader("none")
