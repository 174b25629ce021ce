"""What only an SFTP server can do wrong."""

import os
import re
import socket
import subprocess
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from storage import InvalidPath, NotFound, PermissionDenied, Storage, StorageError
from storage.paths import PARTIAL

if TYPE_CHECKING:
    from tests.infrastructure.storage.conftest import Sshd

pytestmark = pytest.mark.slow

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sftp.PAUSES", (0.0, 0.0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def storage(sshd: "Sshd", root: Path) -> Storage:
    storage = Storage(sshd.url(root))
    storage.write("a", b"old")
    return storage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def calls(storage: Storage) -> list[Callable[[str], object]]:
    """All that can be done to a path."""
    return [
        storage.read,
        storage.open,
        lambda path: storage.write(path, b"mine"),
        lambda path: storage.write(path, b"mine", overwrite=False),
        lambda path: storage.move(path, "new"),
        lambda path: storage.move("a", path, overwrite=True),
        lambda path: storage.copy(path, "new"),
        storage.remove,
        storage.remove_tree,
        storage.stat,
        storage.exists,
        lambda path: list(storage.list(path)),
        lambda path: list(storage.list(path, recursive=False)),
    ]


def failure(call: Callable[[], object], kind: type[StorageError] = StorageError) -> str:
    """What a call says that fails; it tells nobody a secret."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    text = "".join(traceback.format_exception(caught.value))
    assert not re.search(f"{PASSWORD}|{quote(PASSWORD)}|sftp://", text)
    return str(caught.value)


@pytest.mark.parametrize("path", ["folder/file", "folder/new", "folder", "file", "dangling", "relative"])
def test_a_link_that_leaves_the_storage_is_refused_by_every_method(
    storage: Storage, root: Path, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "files-of-others"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "none")
    (root / "relative").symlink_to("../files-of-others/file")
    before = names(root)
    for call in calls(storage):
        with pytest.raises(InvalidPath, match=f"^{path}: a link leads out of the storage$"):
            call(path)
    for write in calls(storage)[2:4]:
        with pytest.raises(InvalidPath, match=r": a link leads out of the storage$|^(file|relative)/new/file: "):
            write(f"{path}/new/file")
    assert [entry.path for entry in storage.list()] == ["a"]
    assert names(root) == before
    assert names(root / PARTIAL) == []
    assert names(outside) == ["file"]
    assert (outside / "file").read_bytes() == b"theirs"


def test_a_link_that_stays_inside_is_followed_and_not_listed(storage: Storage, root: Path) -> None:
    (root / "link").symlink_to("a")
    assert storage.read("link") == b"old"
    assert [entry.path for entry in storage.list()] == ["a"]


def test_a_fifo_is_not_found_and_nobody_waits_for_it(storage: Storage, root: Path) -> None:
    os.mkfifo(root / "fifo")
    for call in (storage.read, storage.open, storage.stat, storage.remove):
        with pytest.raises(NotFound, match=r"^fifo: no such file$"):
            call("fifo")


def test_others_may_not_read(storage: Storage, root: Path) -> None:
    storage.write("folder/file", b"1")
    for path, mode in (("", 0o750), ("folder", 0o750), ("folder/file", 0o640), ("a", 0o640)):
        assert (root / path).stat().st_mode & 0o777 == mode


def test_names_that_no_path_can_hold_are_not_listed(storage: Storage, root: Path) -> None:
    for name in ("back\\slash", "new\nline"):
        (root / name).write_bytes(b"")
    assert [entry.path for entry in storage.list()] == ["a"]
    (root / os.fsdecode(b"\xff")).write_bytes(b"")
    assert failure(lambda: list(storage.list())) == ".: 127.0.0.1 has a name there that is not UTF-8"
    assert storage.read("a") == b"old"


@pytest.mark.parametrize(("known", "reason"), [("", "not known; add"), ("other", "not the known")])
def test_a_server_that_is_not_known_is_not_talked_to(
    sshd: "Sshd", make_sshd: Callable[..., "Sshd"], root: Path, tmp_path: Path, known: str, reason: str
) -> None:
    hosts = tmp_path / "known_hosts"
    key = (make_sshd().folder / "host.pub").read_text() if known else ""
    hosts.write_text(f"[127.0.0.1]:{sshd.port} {key}" if known else "")
    storage = Storage(sshd.url(root, known_hosts=hosts))
    assert re.search(f"^a: 127.0.0.1: its host key is .*{reason}", failure(lambda: storage.read("a")))
    assert re.search(r"^\.: 127.0.0.1: its host key is ", failure(storage.check))
    assert not root.exists()


def test_a_login_that_is_refused_is_permission_denied(make_sshd: Callable[..., "Sshd"], root: Path) -> None:
    server, other = make_sshd(), make_sshd()
    with_key = server.url(root, key_file=other.folder / "user")
    with_password = with_key.partition("key_file")[0].replace("@", f":{quote(PASSWORD)}@")
    with_password += f"known_hosts={server.folder / 'known_hosts'}"
    for url in (with_key, with_password):
        storage = Storage(url)
        assert failure(storage.check, PermissionDenied) == ".: 127.0.0.1: the login is refused"
        assert failure(lambda: storage.write("a", b""), PermissionDenied) == "a: 127.0.0.1: the login is refused"  # noqa: B023


@pytest.mark.parametrize("option", ["key_file", "known_hosts"])
def test_a_missing_key_is_not_taken_for_a_missing_file(sshd: "Sshd", root: Path, option: str) -> None:
    storage = Storage(sshd.url(root, **{option: "/none/such"}))
    for call in (lambda: storage.exists("a"), lambda: storage.read("a")):
        assert failure(call) == "a: 127.0.0.1: [Errno 2] No such file or directory: '/none/such'"


def test_a_server_that_is_down_is_said_so(sshd: "Sshd", closed_port: int, root: Path) -> None:
    storage = Storage(sshd.url(root).replace(f":{sshd.port}/", f":{closed_port}/"))
    for call in (storage.check, lambda: storage.exists("a"), lambda: storage.write("a", b"")):
        assert "Unable to connect to port" in failure(call)


def test_a_server_that_does_not_answer_is_given_up(sshd: "Sshd", root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sftp.CONNECT_TIMEOUT", 0.1)
    monkeypatch.setattr("storage.sftp.PAUSES", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        storage = Storage(sshd.url(root).replace(f":{sshd.port}/", f":{port}/"))
        assert failure(lambda: storage.read("a")).startswith("a: 127.0.0.1: ")


# One of Paramiko's threads sends requests ahead; it complains, too.
@pytest.mark.filterwarnings("ignore:Exception in thread .*prefetch:pytest.PytestUnhandledThreadExceptionWarning")
def test_a_connection_that_was_lost_is_replaced(make_sshd: Callable[..., "Sshd"], root: Path) -> None:
    server = make_sshd()
    storage = Storage(server.url(root))
    storage.write("a", b"old" * 100_000)
    reader, writer = storage.open("a"), storage.open("b", "wb")
    writer.write(b"new")
    server.kill()
    assert failure(lambda: storage.read("a")).startswith("a: 127.0.0.1: ")
    with pytest.raises(StorageError, match=r"^a: 127.0.0.1: "):
        reader.read()
    reader.close()
    server.start()
    writer.close()
    assert (storage.read("a"), storage.read("b")) == (b"old" * 100_000, b"new")


def test_a_server_killed_during_an_upload_leaves_the_old_file(
    make_sshd: Callable[..., "Sshd"], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_sshd()
    storage = Storage(server.url(root))
    storage.write("a", b"old")
    rename = storage.backend._rename  # type: ignore[attr-defined]

    def kill_first(*arguments: object, **options: object) -> None:
        server.kill()
        rename(*arguments, **options)

    monkeypatch.setattr(storage.backend, "_rename", kill_first)
    assert failure(lambda: storage.write("a", b"new" * 100_000)).startswith("a: 127.0.0.1: ")
    assert (root / "a").read_bytes() == b"old"
    monkeypatch.undo()
    server.start()
    storage.write("a", b"newest")
    assert storage.read("a") == b"newest"


def test_what_killed_writers_have_left_is_removed_once_it_is_old(sshd: "Sshd", storage: Storage, root: Path) -> None:
    old, young, foreign = ("0" * 32, "1" * 32, "letter.odt")
    for name in (old, young, foreign):
        (root / PARTIAL / name).write_bytes(b"half")
    for name in (old, foreign):
        os.utime(root / PARTIAL / name, (0, 0))
    assert storage.read("a") == b"old"
    assert names(root / PARTIAL) == [old, young, foreign]
    restarted = Storage(sshd.url(root))
    assert restarted.read("a") == b"old"
    assert names(root / PARTIAL) == [young, foreign]
    assert [entry.path for entry in restarted.list()] == ["a"]


def test_a_server_that_may_not_be_written_is_permission_denied(
    make_sshd: Callable[..., "Sshd"], storage: Storage, root: Path
) -> None:
    read_only = Storage(make_sshd("-R").url(root))
    assert read_only.read("a") == b"old"
    assert failure(read_only.check, PermissionDenied) == ".: 127.0.0.1 denies it"
    for call in (
        lambda: read_only.write("a", b"new"),
        lambda: read_only.write("a/b", b"new"),
        lambda: read_only.remove("a"),
        lambda: read_only.move("a", "b"),
        lambda: read_only.copy("a", "b"),
    ):
        assert re.search(r"^(a|a/b|b): 127.0.0.1 denies it$", failure(call, PermissionDenied))
    assert (storage.read("a"), names(root)) == (b"old", [PARTIAL, "a"])


def test_a_full_disk_there_keeps_the_old_file_and_leaves_nothing_else(sshd: "Sshd", tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        storage = Storage(sshd.url(disk))
        storage.write("a", b"old" * 100_000)
        # Too much by a whole megabyte, and by one last packet.
        for size in (2_000_000, 1_048_576 - 300_000):
            assert failure(lambda: storage.write("a", b"n" * size)).startswith("a: 127.0.0.1: ")  # noqa: B023
            assert storage.read("a") == b"old" * 100_000
            assert names(disk / PARTIAL) == []
        storage.write("b", b"fits")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_root_that_is_not_there_is_made_and_one_that_is_gone_is_made_again(sshd: "Sshd", root: Path) -> None:
    storage = Storage(sshd.url(root / "new/ä b").replace("ä b", quote("ä b")))
    storage.write("a", b"1")
    assert (root / "new/ä b/a").read_bytes() == b"1"
    (root / "new").rename(root / "moved")
    assert list(storage.list()) == []
    assert not storage.exists("a")
    (root / "new").mkdir()
    storage.write("a", b"2")
    assert (root / "new/ä b/a").read_bytes() == b"2"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_makes_connections_of_its_own(storage: Storage) -> None:
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(write, storage.read("a"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"old"
    assert storage.read("a") == b"old"


def test_large_files_need_little_memory(storage: Storage) -> None:
    chunk, count = os.urandom(1 << 20), 24
    tracemalloc.start()
    try:
        with storage.open("large", "wb") as writer:
            for _ in range(count):
                writer.write(chunk)
        with storage.open("large") as reader:
            assert sum(len(part) for part in iter(lambda: reader.read(len(chunk)), b"")) == count * len(chunk)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(chunk)
    finally:
        tracemalloc.stop()
