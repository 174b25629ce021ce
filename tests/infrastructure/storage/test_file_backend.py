"""What only a disk can do wrong."""

import errno
import fcntl
import grp
import itertools
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest

from storage import AlreadyExists, InvalidPath, NotFound, PermissionDenied, Storage, StorageError
from storage.paths import PARTIAL

PROJECT = Path(__file__).parents[3]
NOBODY = 65534
# Writes half a file, says so, and finishes it when it is told to.
SLOW_WRITER = """
import sys
from storage import Storage
with Storage(sys.argv[1]).open("a", "wb") as stream:
    stream.write(b"new" * 1_000_000)
    print("half", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def storage(root: Path) -> Storage:
    storage = Storage(root.as_uri())
    storage.write("a", b"old")
    return storage


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the storage, with a file in it."""
    folder = tmp_path / "files-of-others"
    folder.mkdir()
    (folder / "file").write_bytes(b"theirs")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def calls(storage: Storage) -> list[Callable[[str], object]]:
    """All that can be done to a path."""
    return [
        storage.read,
        storage.read_text,
        storage.open,
        lambda path: storage.open(path, "wb").close(),
        lambda path: storage.write(path, b"mine"),
        lambda path: storage.write(path, b"mine", overwrite=False),
        lambda path: storage.write(f"{path}/new/file", b"mine"),
        lambda path: storage.move(path, "new"),
        lambda path: storage.move("a", path, overwrite=True),
        lambda path: storage.move("a", f"{path}/new/file"),
        lambda path: storage.copy(path, "new"),
        lambda path: storage.copy("a", path, overwrite=True),
        storage.remove,
        storage.remove_tree,
        storage.stat,
        storage.exists,
        lambda path: list(storage.list(path)),
        lambda path: list(storage.list(path, recursive=False)),
    ]


@pytest.mark.parametrize("path", ["folder/file", "folder/new", "folder", "file", "dangling", "relative", "chain/file"])
def test_a_link_that_leaves_the_storage_is_refused_by_every_method(
    storage: Storage, root: Path, outside: Path, path: str
) -> None:
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "none")
    (root / "relative").symlink_to("../files-of-others/file")
    (root / "chain").symlink_to(root / "folder")
    before = names(root)
    for call in calls(storage):
        with pytest.raises(InvalidPath, match=f"^{path}(/new/file|/new)?: a link leads out of the storage$"):
            call(path)
    assert [entry.path for entry in storage.list()] == ["a"]
    assert names(root) == before
    assert names(root / PARTIAL) == []
    assert names(outside) == ["file"]
    assert (outside / "file").read_bytes() == b"theirs"


def test_a_link_that_stays_inside_is_followed_and_not_listed(storage: Storage, root: Path) -> None:
    storage.write("folder/b", b"1")
    (root / "link").symlink_to("a")
    (root / "link-to-folder").symlink_to(root / "folder")
    assert (storage.read("link"), storage.read("link-to-folder/b")) == (b"old", b"1")
    assert [entry.path for entry in storage.list()] == ["a", "folder/b"]
    storage.remove("link")
    assert storage.read("a") == b"old"


def test_a_link_in_circles_is_refused(storage: Storage, root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    looks: list[Callable[[str], object]] = [
        storage.read,
        storage.open,
        storage.stat,
        storage.exists,
        lambda path: storage.copy(path, "new"),
        lambda path: list(storage.list(path)),
    ]
    for path, look in itertools.product(["one", "one/below"], looks):
        with pytest.raises(InvalidPath, match=f"^{path}: a link leads in circles$"):
            look(path)
    assert [entry.path for entry in storage.list()] == ["a"]


def test_a_partial_folder_that_is_a_link_is_not_cleaned_up(storage: Storage, root: Path, outside: Path) -> None:
    (root / PARTIAL).rmdir()
    (root / PARTIAL).symlink_to(outside)
    Storage(root.as_uri())
    assert names(outside) == ["file"]


def test_the_root_may_be_a_link_and_have_an_odd_name(tmp_path: Path) -> None:
    (tmp_path / "ä b%").mkdir()
    (tmp_path / "link ü").symlink_to("ä b%")
    Storage((tmp_path / "link ü").as_uri()).write("x/y", b"1")
    assert (tmp_path / "ä b%/x/y").read_bytes() == b"1"


@pytest.mark.parametrize("path", ["fifo", "fifo/below"])
def test_what_is_neither_file_nor_folder_is_not_found_and_nobody_waits_for_it(
    storage: Storage, root: Path, path: str
) -> None:
    os.mkfifo(root / "fifo")
    looks: list[Callable[[str], object]] = [
        storage.read,
        storage.open,
        storage.stat,
        storage.remove,
        lambda path: storage.move(path, "new"),
    ]
    for look in looks:
        with pytest.raises(NotFound, match=f"^{path}: no such file$"):
            look(path)
    assert not storage.exists(path)
    writes: list[Callable[[], object]] = [
        lambda: storage.write(path, b""),
        lambda: storage.move("a", path, overwrite=True),
    ]
    for write in writes:
        with pytest.raises(StorageError, match=f"^{path}: "):
            write()
    assert [entry.path for entry in storage.list()] == ["a"]
    assert (root / "fifo").is_fifo()


def test_names_that_no_path_can_hold_are_not_listed(storage: Storage, root: Path) -> None:
    for name in (b"back\\slash", b"new\nline", b"\xff"):
        (root / os.fsdecode(name)).write_bytes(b"")
    assert [entry.path for entry in storage.list()] == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_partial_one(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stream = storage.open("a", "wb")
    stream.write(b"new")
    # What is buffered has to go somewhere; /dev/full takes nothing.
    if step == "write":
        redirect(stream.file.fileno(), "/dev/full")  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match=r"^a: No space left on device$"):
        stream.close()
    assert storage.read("a") == b"old"
    assert names(root / PARTIAL) == []


def test_a_stream_that_has_failed_once_cannot_be_finished(storage: Storage, root: Path) -> None:
    stream = storage.open("a", "wb")
    redirect(stream.file.fileno(), "/dev/full")  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"^a: No space left on device$"):
        stream.write(b"x" * 100_000)
    redirect(stream.file.fileno(), os.devnull)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"^a: not written, because a write before has failed$"):
        stream.close()
    assert storage.read("a") == b"old"
    assert names(root / PARTIAL) == []


def redirect(descriptor: int, device: str) -> None:
    """Let what is written go to a device instead."""
    other = os.open(device, os.O_WRONLY)
    os.dup2(other, descriptor)
    os.close(other)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_else(small_disk: Path) -> None:
    storage = Storage(small_disk.as_uri())
    storage.write("a", b"old" * 200_000)
    writes: list[Callable[[], object]] = [
        lambda: storage.write("a", b"new" * 200_000),
        lambda: storage.copy("a", "b"),
        lambda: storage.write("folder/b", b"new" * 400_000, overwrite=False),
    ]
    for write in writes:
        with pytest.raises(StorageError, match=r"^(a|b|folder/b): No space left on device$"):
            write()
        assert [entry.path for entry in storage.list()] == ["a"]
        assert storage.read("a") == b"old" * 200_000
        assert names(small_disk / PARTIAL) == []
    storage.write("b", b"fits" * 10_000)
    assert storage.read("b") == b"fits" * 10_000


def test_bytes_reach_the_disk_before_the_name_does(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Mock()
    monkeypatch.setattr(os, "fsync", steps.fsync)
    monkeypatch.setattr(os, "replace", steps.replace)
    storage.write("a", b"new")
    assert [name for name, *_ in steps.mock_calls] == ["fsync", "replace"]


@pytest.fixture
def slow_writer(root: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts processes that have written half of the new `a`."""
    with ExitStack() as stack:

        def start() -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-c", SLOW_WRITER, root.as_uri()]
            writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT)
            stack.enter_context(writer)
            stack.callback(writer.kill)
            assert writer.stdout
            assert writer.stdout.readline() == b"half\n"
            return writer

        yield start


def test_a_killed_writer_leaves_the_old_file_and_the_next_start_removes_its_rest(
    storage: Storage, root: Path, slow_writer: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    live, killed = slow_writer(), slow_writer()
    killed.kill()
    killed.wait()
    assert storage.read("a") == b"old"
    assert [entry.path for entry in storage.list()] == ["a"]
    assert len(names(root / PARTIAL)) == 2
    restarted = Storage(root.as_uri())
    assert len(names(root / PARTIAL)) == 1
    assert restarted.read("a") == b"old"
    live.communicate()
    assert live.returncode == 0
    assert storage.read("a") == b"new" * 1_000_000
    assert names(root / PARTIAL) == []


def test_two_storages_on_one_folder_share_its_files(storage: Storage, root: Path) -> None:
    with storage.open("b", "wb") as stream:
        stream.write(b"half")
        other = Storage(root.as_uri())
    assert (other.read("a"), other.read("b")) == (b"old", b"half")
    with pytest.raises(AlreadyExists):
        other.write("a", b"new", overwrite=False)
    other.remove("a")
    with pytest.raises(NotFound):
        storage.read("a")


@pytest.mark.parametrize(
    ("options", "file_mode", "folder_mode"),
    [("", 0o640, 0o750), ("?file_mode=0644&folder_mode=0755", 0o644, 0o755), ("?file_mode=666", 0o666, 0o750)],
)
def test_files_and_folders_have_their_modes_whatever_the_umask(
    tmp_path: Path, options: str, file_mode: int, folder_mode: int
) -> None:
    umask = os.umask(0o077)
    try:
        storage = Storage((tmp_path / "new/files").as_uri() + options)
        storage.write("folder/file", b"1")
        storage.copy("folder/file", "other/copy")
    finally:
        os.umask(umask)
    for path in (tmp_path / "new").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (folder_mode if path.is_dir() else file_mode)


def test_files_belong_to_whom_the_options_say(tmp_path: Path) -> None:
    # Only root may give files away; anybody may give them to themselves.
    user, group = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    owners = {
        pwd.getpwuid(user).pw_name: (user, os.getgid()),
        f"{pwd.getpwuid(user).pw_name}:{grp.getgrgid(group).gr_name}": (user, group),
        f":{grp.getgrgid(group).gr_name}": (os.getuid(), group),
    }
    for number, (owner, expected) in enumerate(owners.items()):
        folder = tmp_path / f"{number}"
        Storage(f"{folder.as_uri()}?owner={owner}").write("folder/file", b"1")
        for path in (folder / "folder", folder / "folder/file"):
            assert (path.stat().st_uid, path.stat().st_gid) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("owner=none-such", "owner 'none-such': no such user or group"),
        ("owner=:none-such", "owner ':none-such': no such user or group"),
        ("file_mode=rw", "mode 'rw', expected one like 0640"),
        ("folder_mode=0999", "mode '0999', expected one like 0640"),
        ("mode=0644", "unknown option mode; expected file_mode or folder_mode or owner"),
    ],
)
def test_an_option_that_is_wrong_is_refused_before_anything_is_made(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Storage(f"{(tmp_path / 'files').as_uri()}?{options}")
    assert names(tmp_path) == []


@pytest.fixture
def nobody() -> Iterator[None]:
    """A test that does not run as root, since root may do everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


class TestAsNobody:
    """In folders that may not be written, or not be read."""

    @pytest.fixture
    def root(self) -> Iterator[Path]:
        # Pytest's own folders are closed to others.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            root = Path(folder) / "files"
            storage = Storage(f"{root.as_uri()}?file_mode=644&folder_mode=777")
            for path in ("folder/file", "open/file", "secret"):
                storage.write(path, b"old")
            if os.geteuid() == 0:
                for path in ("folder/file", "open"):
                    os.chown(root / path, NOBODY, -1)
            (root / "folder").chmod(0o555)
            (root / "secret").chmod(0o000)
            yield root
            for name in ("folder", "open"):
                (root / name).chmod(0o755)

    def test_an_unwritable_folder_is_permission_denied(self, root: Path, nobody: None) -> None:
        storage = Storage(root.as_uri())
        changes: dict[str, list[Callable[[], object]]] = {
            "folder/file": [
                lambda: storage.write("folder/file", b"new"),
                lambda: storage.remove("folder/file"),
                lambda: storage.move("folder/file", "new"),
            ],
            "folder/new": [lambda: storage.write("folder/new", b"1", overwrite=False)],
            "folder/new/file": [lambda: storage.write("folder/new/file", b"1")],
            "open/file": [lambda: storage.move("open/file", "folder/new")],
            "secret": [lambda: storage.read("secret"), lambda: storage.open("secret")],
        }
        for path, change in ((path, change) for path, changes in changes.items() for change in changes):
            with pytest.raises(PermissionDenied, match=f"^{path}: (Permission denied|Operation not permitted)$"):
                change()
        assert [entry.path for entry in storage.list()] == ["folder/file", "open/file", "secret"]
        assert (storage.read("folder/file"), names(root / PARTIAL)) == (b"old", [])

    def test_a_folder_that_may_not_be_searched_is_permission_denied(self, root: Path, nobody: None) -> None:
        (root / "open").chmod(0o444)
        storage = Storage(root.as_uri())
        calls: list[Callable[[], object]] = [
            lambda: list(storage.list("open")),
            lambda: storage.remove_tree("open"),
            lambda: storage.exists("open/file"),
            lambda: storage.read("open/file"),
        ]
        for call in calls:
            with pytest.raises(PermissionDenied, match=r"^open(/file)?: Permission denied$"):
                call()

    def test_a_root_that_may_not_be_written_fails_its_check(self, root: Path, nobody: None) -> None:
        Storage(root.as_uri()).check()
        for folder in (root / "folder", root / "folder/new"):
            with pytest.raises(PermissionDenied, match=f"^{folder}: Permission denied$"):
                Storage(folder.as_uri()).check()


def test_a_root_that_is_a_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file/below"):
        storage = Storage(root.as_uri())
        for call in (storage.check, lambda: storage.write("a", b"")):  # noqa: B023
            with pytest.raises(StorageError, match=f"^{root}/{PARTIAL}: cannot be made a folder$"):
                call()


def test_a_name_that_is_too_long_for_the_disk_is_an_error_of_the_path(storage: Storage, root: Path) -> None:
    with pytest.raises(InvalidPath, match=r"^'a{40}'…: a name longer than 255 bytes$"):
        storage.write("a" * 300, b"")
    # The disk's own limit counts the root, too.
    with pytest.raises(StorageError, match=r"^a: File name too long$"):
        Storage(root.joinpath(*["x" * 200] * 20).as_uri()).write("a", b"")


@pytest.mark.slow
def test_large_files_need_little_memory(storage: Storage) -> None:
    chunk, count = os.urandom(1 << 20), 64
    tracemalloc.start()
    try:
        with storage.open("large", "wb") as writer:
            for _ in range(count):
                writer.write(chunk)
        storage.copy("large", "copy")
        with storage.open("copy") as reader:
            assert sum(len(part) for part in iter(lambda: reader.read(len(chunk)), b"")) == count * len(chunk)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(chunk)
    finally:
        tracemalloc.stop()


def test_what_others_keep_in_a_folder_of_that_name_is_theirs(root: Path) -> None:
    (root / PARTIAL).mkdir(parents=True)
    (root / PARTIAL / "letter.odt").write_text("theirs")
    storage = Storage(root.as_uri())
    assert names(root / PARTIAL) == ["letter.odt"]
    assert list(storage.list()) == []


def test_a_new_file_that_cannot_be_given_away_leaves_nothing_open(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(PermissionDenied, match=r": Operation not permitted$"):
            storage.check()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert names(root / PARTIAL) == []


def test_the_whole_disk_can_be_a_storage(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert Storage("file:///").read(str(tmp_path / "a")[1:]) == b"1"


def test_a_socket_is_no_file(storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # A socket's path may not be long.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert not storage.exists("socket")
        assert [entry.path for entry in storage.list()] == ["a"]


def test_a_name_that_no_path_can_hold_is_left_out_of_a_listing_and_said_so(
    storage: Storage, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "line\nbreak").touch()
    assert [entry.path for entry in storage.list()] == ["a"]
    assert "no path can hold its name: 'line\\nbreak'" in caplog.text
