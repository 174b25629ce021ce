"""What only a local disk can do wrong."""

import errno
import itertools
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage import AlreadyExists, InvalidPath, NotFound, PermissionDenied, Storage, StorageError
from storage.paths import PARTIAL

PROJECT = Path(__file__).parents[3]
NOBODY = 65534
MEGABYTE = 1 << 20
# Writes half a file, says so, and finishes it when it is told to.
SLOW_WRITER = """
import sys
from storage import Storage
with Storage(sys.argv[1]).writer("folder/a") as stream:
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


def paths(storage: Storage) -> list[str]:
    return [entry.path for entry in storage.list()]


def looks(storage: Storage) -> list[Callable[[str], object]]:
    """All that needs a file at a path."""
    return [
        storage.read,
        storage.reader,
        storage.remove,
        storage.stat,
        lambda path: storage.move(path, "new"),
        lambda path: storage.copy(path, "new"),
    ]


def calls(storage: Storage) -> list[Callable[[str], object]]:
    """All that can be done to a path."""
    return [
        *looks(storage),
        lambda path: storage.write(path, b"mine"),
        lambda path: storage.write(path, b"mine", overwrite=False),
        lambda path: storage.write(f"{path}/new/file", b"mine"),
        lambda path: storage.move("a", path, overwrite=True),
        lambda path: storage.move("a", f"{path}/new/file"),
        lambda path: storage.copy("a", path, overwrite=True),
        storage.exists,
        lambda path: list(storage.list(path)),
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
    assert paths(storage) == ["a"]
    assert names(root) == before
    assert names(outside) == ["file"]
    assert (outside / "file").read_bytes() == b"theirs"


def test_a_link_that_changes_while_a_file_is_opened_leads_nowhere(
    storage: Storage, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("folder/file", b"mine")
    really_open = os.open

    def swap_and_open(path: str, *arguments: int) -> int:
        (root / "folder").rename(root / "moved")
        (root / "folder").symlink_to(outside)
        return really_open(path, *arguments)

    monkeypatch.setattr(os, "open", swap_and_open)
    with pytest.raises(InvalidPath, match=r"^folder/file: a link leads out of the storage$"):
        storage.read("folder/file")


def test_a_link_that_stays_inside_is_followed_and_not_listed(storage: Storage, root: Path) -> None:
    storage.write("folder/b", b"1")
    (root / "link").symlink_to("a")
    (root / "link-to-folder").symlink_to(root / "folder")
    assert (storage.read("link"), storage.read("link-to-folder/b")) == (b"old", b"1")
    assert paths(storage) == ["a", "folder/b"]
    storage.remove("link")
    assert storage.read("a") == b"old"


def test_links_in_circles_are_refused(storage: Storage, root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    for path, look in itertools.product(["one", "one/below"], [*looks(storage), storage.exists]):
        with pytest.raises(StorageError, match=f"^{path}: Too many levels of symbolic links$"):
            look(path)
    assert paths(storage) == ["a"]


def test_the_root_may_be_a_link_and_have_an_odd_name(tmp_path: Path) -> None:
    (tmp_path / "ä b%").mkdir()
    (tmp_path / "link ü").symlink_to("ä b%")
    Storage((tmp_path / "link ü").as_uri()).write("x/y", b"1")
    assert (tmp_path / "ä b%/x/y").read_bytes() == b"1"


def test_what_is_neither_file_nor_folder_is_not_found_without_waiting_for_it(storage: Storage, root: Path) -> None:
    os.mkfifo(root / "fifo")
    for path, look in itertools.product(["fifo", "fifo/below"], looks(storage)):
        with pytest.raises(NotFound, match=f"^{path}: no such file$"):
            look(path)
    assert paths(storage) == ["a"]


def test_names_that_no_path_can_hold_are_left_out_of_a_listing_with_a_warning(
    storage: Storage, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (b"back\\slash", b"new\nline", b"\xff"):
        (root / os.fsdecode(name)).write_bytes(b"")
    deep = root
    for _ in range(6):  # Deeper than any path may be long.
        deep = deep / ("x" * 200)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert paths(storage) == ["a"]
    assert "left out of a listing, since it is no path: 'new\\nline'" in caplog.text


def write_to_full_disk(storage: Storage, data: bytes) -> None:
    with storage.writer("a") as writer:
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, writer.fileno())
        os.close(device)
        writer.write(data)


def test_a_full_disk_is_an_error_of_the_storage_and_keeps_the_old_file(storage: Storage, root: Path) -> None:
    for data in (b"new", b"new" * 100_000):
        with pytest.raises(StorageError, match=r"^a: No space left on device$"):
            write_to_full_disk(storage, data)
        assert storage.read("a") == b"old"
        assert names(root) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_at_its_end_keeps_the_old_file_and_leaves_nothing_else(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match=r"^a: Input/output error$"):
        storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert names(root) == ["a"]


@pytest.fixture
def slow_writer(root: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has written half of the new `folder/a`."""
    command = [sys.executable, "-c", SLOW_WRITER, root.as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == b"half\n"
        yield writer
        writer.kill()


def test_a_killed_writer_leaves_the_old_file_and_a_rest_that_no_listing_shows(
    storage: Storage, root: Path, slow_writer: "subprocess.Popen[bytes]"
) -> None:
    storage.write("folder/a", b"old")
    slow_writer.kill()
    slow_writer.wait()
    [left] = [name for name in names(root / "folder") if name != "a"]
    assert left.startswith(PARTIAL)
    assert paths(storage) == ["a", "folder/a"]
    assert storage.read("folder/a") == b"old"


def test_files_are_the_service_s_and_its_group_s(storage: Storage, root: Path) -> None:
    storage.copy("a", "folder/b")
    storage.move("a", "other/c")
    modes = {place.name: stat.S_IMODE(place.stat().st_mode) for place in root.rglob("*")}
    assert modes == {"folder": 0o750, "b": 0o640, "other": 0o750, "c": 0o640}


@contextmanager
def mounted(folder: Path, *command: str) -> Iterator[None]:
    """A file system of its own at `folder`, where that is possible."""
    if os.geteuid() or not shutil.which(command[0]) or subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"needs root, and the programs and the kernel for `{' '.join(command[:3])}`")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A USB stick: no hard links, no modes, every file executable, names that fold case."""
    image, folder = tmp_path / "image", tmp_path / "stick"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * MEGABYTE)
    if not shutil.which("mkfs.exfat") or subprocess.run(["mkfs.exfat", image], capture_output=True).returncode:
        pytest.skip("needs mkfs.exfat: apt-get install exfatprogs exfat-fuse")
    loop = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
    if loop.returncode:
        pytest.skip("needs root and a loop device")
    device = loop.stdout.strip()
    try:
        with mounted(folder, "mount.exfat-fuse", device, str(folder)):
            yield folder
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_usb_stick_works(exfat: Path) -> None:
    storage = Storage((exfat / "files").as_uri())
    storage.check()
    storage.write("folder/Report.csv", b"1", overwrite=False)
    with pytest.raises(AlreadyExists, match=r"^folder/report.csv: exists already$"):
        storage.write("folder/report.csv", b"2", overwrite=False)
    storage.move("folder/Report.csv", "moved.csv")
    storage.copy("moved.csv", "copy.csv")
    assert paths(storage) == ["copy.csv", "moved.csv"]
    for path in ("a:b.txt", "a:b/c.txt"):
        with pytest.raises(StorageError, match=f"^{path}: cannot be made; the file system may not allow such a name$"):
            storage.write(path, b"1")
    storage.remove("copy.csv")
    storage.remove("moved.csv")
    assert names(exfat / "files") == []


def test_a_part_of_the_tree_may_be_another_file_system(storage: Storage, root: Path) -> None:
    (root / "mount").mkdir()
    with mounted(root / "mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root / "mount")):
        storage.move("a", "mount/new/b")
        storage.copy("mount/new/b", "c")
        storage.write("mount/new/b", b"new")
        with pytest.raises(AlreadyExists, match=r"^c: exists already$"):
            storage.move("mount/new/b", "c")
        storage.move("mount/new/b", "c", overwrite=True)
        assert {path: storage.read(path) for path in paths(storage)} == {"c": b"new"}
        with pytest.raises(StorageError, match=r"^mount/large: No space left on device$"):
            storage.write("mount/large", bytes(2 * MEGABYTE))
        assert names(root / "mount") == []


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
            storage = Storage(root.as_uri())
            for path in ("folder/file", "open/file", "secret"):
                storage.write(path, b"old")
            for place in (root, *root.rglob("*")):
                os.chown(place, NOBODY if os.geteuid() == 0 else -1, -1)
                place.chmod(0o777 if place.is_dir() else 0o644)
            (root / "folder").chmod(0o555)
            (root / "secret").chmod(0o000)
            yield root

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
            "secret": [lambda: storage.read("secret"), lambda: storage.reader("secret")],
        }
        for path, change in ((path, change) for path, changes in changes.items() for change in changes):
            with pytest.raises(PermissionDenied, match=f"^{path}: (Permission denied|Operation not permitted)$"):
                change()
        assert paths(storage) == ["folder/file", "open/file", "secret"]
        assert storage.read("folder/file") == b"old"
        assert names(root) == ["folder", "open", "secret"]

    def test_a_folder_that_may_not_be_searched_is_permission_denied(self, root: Path, nobody: None) -> None:
        os.seteuid(0)
        (root / "open").chmod(0o444)
        os.seteuid(NOBODY)
        storage = Storage(root.as_uri())
        calls: list[Callable[[], object]] = [
            lambda: list(storage.list("open")),
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
        assert names(root / "folder") == ["file"]


def test_a_root_that_is_a_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file/below"):
        storage = Storage(root.as_uri())
        for call in (storage.check, lambda: storage.write("a", b"")):  # noqa: B023
            with pytest.raises(StorageError, match=f"^({root}|a): a file stands where a folder is needed$"):
                call()


def test_a_path_that_is_too_long_for_the_disk_is_an_error(root: Path) -> None:
    with pytest.raises(StorageError, match=r"^a: File name too long$"):
        Storage(root.joinpath(*["x" * 200] * 20).as_uri()).write("a", b"")


def test_the_whole_disk_can_be_a_storage(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert Storage("file:///").read(str(tmp_path / "a")[1:]) == b"1"


def test_a_file_of_256_megabytes_is_written_once_and_needs_little_memory(storage: Storage, root: Path) -> None:
    chunk = os.urandom(MEGABYTE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with storage.writer("large") as writer:
        for _ in range(256):
            writer.write(chunk)
        [partial] = [name for name in names(root) if name.startswith(PARTIAL)]
        written = (root / partial).stat().st_ino
    assert (root / "large").stat().st_ino == written
    storage.copy("large", "copy")
    with storage.reader("copy") as reader:
        assert sum(len(part) for part in iter(lambda: reader.read(MEGABYTE), b"")) == 256 * MEGABYTE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
