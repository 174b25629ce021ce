"""What only a disk can do wrong."""

import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from storage import AlreadyExists, InvalidPath, NotFound, Storage, StorageError


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
    return [path.name for path in folder.iterdir()]


def test_a_link_that_leaves_the_storage_is_refused_by_every_method(storage: Storage, root: Path, outside: Path) -> None:
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "none")
    (root / "relative").symlink_to("../files-of-others/file")
    (root / "chain").symlink_to(root / "folder")
    calls: list[Callable[[str], object]] = [
        storage.read,
        lambda path: storage.open(path, "wb"),
        lambda path: storage.write(path, b"mine"),
        lambda path: storage.write(f"{path}/new/file", b"mine"),
        lambda path: storage.move(path, "new"),
        lambda path: storage.move("a", path, overwrite=True),
        lambda path: storage.copy(path, "new"),
        lambda path: storage.copy("a", path, overwrite=True),
        storage.remove,
        storage.remove_tree,
        storage.stat,
        storage.exists,
        lambda path: list(storage.list(path)),
    ]
    links = ["folder/file", "folder/new", "folder", "file", "dangling", "relative", "chain/file"]
    for path, call in itertools.product(links, calls):
        with pytest.raises(InvalidPath, match=r"a link leads out of the storage$"):
            call(path)
    assert [entry.path for entry in storage.list()] == ["a"]
    assert names(outside) == ["file"]
    assert (outside / "file").read_bytes() == b"theirs"


def test_a_link_that_stays_inside_is_followed_and_not_listed(storage: Storage, root: Path) -> None:
    (root / "link").symlink_to("a")
    assert storage.read("link") == b"old"
    assert [entry.path for entry in storage.list()] == ["a"]


def test_a_link_in_circles_is_refused(storage: Storage, root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    with pytest.raises(InvalidPath, match=r"^one: a link leads in circles$"):
        storage.read("one")
    assert not storage.exists("one")


def test_the_root_may_be_a_link_and_have_an_odd_name(tmp_path: Path) -> None:
    (tmp_path / "ä b%").mkdir()
    (tmp_path / "link ü").symlink_to("ä b%")
    Storage((tmp_path / "link ü").as_uri()).write("x/y", b"1")
    assert (tmp_path / "ä b%/x/y").read_bytes() == b"1"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_partial_one(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match=r"^a: No space left on device$"):
        storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert names(root) == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(storage: Storage, root: Path) -> None:
    with storage.open("b", "wb") as stream:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, stream.fileno())
        os.close(full)
        with pytest.raises(StorageError, match=r"^b: No space left on device$"):
            stream.write(b"x" * 100_000)
        stream.write(b"x")
        with pytest.raises(StorageError, match=r"^b: No space left on device$"):
            stream.close()
    assert names(root) == ["a"]


def test_bytes_reach_the_disk_before_the_name_does(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Mock()
    monkeypatch.setattr(os, "fsync", steps.fsync)
    monkeypatch.setattr(os, "replace", steps.replace)
    storage.write("a", b"new")
    assert [name for name, *_ in steps.mock_calls] == ["fsync", "replace"]


def test_what_is_being_written_is_not_listed(storage: Storage, root: Path) -> None:
    with storage.open("b", "wb") as stream:
        stream.write(b"half")
        assert [entry.path for entry in storage.list()] == ["a"]
        assert len(names(root)) == 2


def test_a_file_cannot_be_a_folder_as_well(storage: Storage) -> None:
    storage.write("folder/file", b"1")
    for path in ("a/b", "a/b/c"):
        with pytest.raises(StorageError, match=f"^{path}: a file stands where a folder is needed$"):
            storage.write(path, b"")
        with pytest.raises(StorageError, match=f"^{path}: a file stands where a folder is needed$"):
            storage.move("folder/file", path)
    for overwrite in (True, False):
        with pytest.raises(StorageError, match=r"^folder: a folder, expected a file$"):
            storage.write("folder", b"", overwrite=overwrite)
        with pytest.raises(StorageError, match=r"^folder: a folder, expected a file$"):
            storage.move("a", "folder", overwrite=overwrite)
    assert [entry.path for entry in storage.list()] == ["a", "folder/file"]


def test_others_may_not_read(storage: Storage, root: Path) -> None:
    storage.write("folder/file", b"1")
    assert stat.S_IMODE((root / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "folder/file").stat().st_mode) == 0o640


def test_two_storages_on_one_folder_share_its_files(storage: Storage, root: Path) -> None:
    other = Storage(root.as_uri())
    assert other.read("a") == b"old"
    with pytest.raises(AlreadyExists):
        other.write("a", b"new", overwrite=False)
    other.remove("a")
    with pytest.raises(NotFound):
        storage.read("a")


def test_a_root_that_cannot_be_used_fails_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        Storage((tmp_path / "file").as_uri()).check()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=f"^{tmp_path}/folder: not writable$"):
        Storage((tmp_path / "folder").as_uri()).check()
