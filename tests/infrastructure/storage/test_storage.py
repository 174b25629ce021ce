"""What every backend promises, besides what `test_storage_model.py` proves; each test runs on all of them."""

import contextlib
import io
import itertools
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from storage import AlreadyExists, Storage
from storage.objects import SPOOL

ODD_NAMES = [
    *("%2e%2e", "%", "a b", " ", "*?[a]", "日本", "C:", "a+b&c=d#e;f", "\"'<>|`$HOME", "👩\u200d👩\u200d👧", "..."),
    *("..a", "~root", "-rf", ".hidden", ".part", " .partial-", "e\u0301", "a" * 255, "ü" * 127),
]


def paths(storage: Storage, prefix: str = "") -> list[str]:
    return [entry.path for entry in storage.list(prefix)]


def test_bytes_come_back_unchanged(storage: Storage) -> None:
    for data in (b"", b"a\r\nb\n\r\x00\xff\x1a", bytes(range(256)) * 8192):
        storage.write("a/b.bin", data)
        assert storage.read("a/b.bin") == data
        with storage.reader("a/b.bin") as stream:
            assert stream.read(2) + stream.read() == data


def test_spellings_of_a_path_are_one_file(storage: Storage) -> None:
    for spelling in ("a//b", "./a/b", "a/./b", "a/b/"):
        storage.write(spelling, spelling.encode())
        assert storage.read("a/b") == spelling.encode()
    assert paths(storage) == ["a/b"]


@pytest.mark.parametrize("method", ["move", "copy"])
def test_a_file_survives_being_put_onto_itself(storage: Storage, method: str) -> None:
    storage.write("a", b"1")
    getattr(storage, method)("a", "./a", overwrite=True)
    with pytest.raises(AlreadyExists, match=r"^a: exists already$"):
        getattr(storage, method)("a", "a/")
    assert {path: storage.read(path) for path in paths(storage)} == {"a": b"1"}


def test_an_entry_tells_size_time_and_a_tag_that_changes(storage: Storage) -> None:
    before = datetime.now(UTC)
    storage.write("a", b"12345")
    first = storage.stat("a")
    assert (first.path, first.size) == ("a", 5)
    assert abs(first.modified - before) < timedelta(minutes=1)
    assert first.modified.utcoffset() == timedelta(0)
    assert [first] == list(storage.list())
    storage.write("a", b"123456")
    assert storage.stat("a").etag != first.etag


def test_a_listing_is_sorted_by_whole_path(storage: Storage) -> None:
    expected = ["A", "a-b", "a.txt", "a/b.c", "a/b/c", "a0", "ä", "\uffee", "😀"]
    for path in reversed(expected):
        storage.write(path, b"")
    assert paths(storage) == expected


def test_a_storage_that_was_never_written_is_empty(storage: Storage) -> None:
    assert paths(storage) == paths(storage, "a") == []
    assert not storage.exists("a")
    storage.check()
    assert paths(storage) == []


def test_a_file_removed_during_a_listing_is_left_out(storage: Storage, scheme: str) -> None:
    for path in ("a", "b", "c/d", "e"):
        storage.write(path, b"")
    listing = storage.list()
    assert isinstance(listing, Iterator)
    found = [next(listing).path]
    storage.remove("b")
    storage.remove("c/d")
    found += [entry.path for entry in listing]
    if scheme != "file":
        # What a store has sent before is handed out.
        found = [path for path in found if path not in ("b", "c/d")]
    assert found == ["a", "e"]


def test_a_path_that_only_looks_odd_is_a_file_like_any_other(storage: Storage) -> None:
    for name in ODD_NAMES:
        for path in (name, f"folder/{name}", f"{name[:100]}-folder/file"):
            storage.write(path, name.encode())
            assert storage.read(path) == name.encode()
            assert storage.stat(path).size == len(name.encode())
            storage.copy(path, "copy")
            storage.move("copy", path, overwrite=True)
            assert paths(storage) == paths(storage, path.rpartition("/")[0]) == [path]
            storage.remove(path)
    assert paths(storage) == []


def test_a_stream_becomes_the_file_at_the_end_of_its_block(storage: Storage) -> None:
    storage.write("a", b"old")
    with storage.writer("a") as stream:
        assert stream.write(b"ne") == 2
        stream.flush()
        assert storage.read("a") == b"old"
        assert paths(storage) == ["a"]
        stream.write(b"w")
    assert storage.read("a") == b"new"
    with pytest.raises(ValueError, match="closed"):
        stream.write(b"more")


def interrupt(storage: Storage) -> None:
    with contextlib.suppress(KeyboardInterrupt), storage.writer("a") as stream:
        stream.write(b"half" * 1_000_000)
        raise KeyboardInterrupt


def interrupt_text(storage: Storage) -> None:
    with (
        contextlib.suppress(KeyboardInterrupt),
        storage.writer("new/b") as stream,
        io.TextIOWrapper(stream, encoding="utf-8") as text,
    ):
        text.write("half")
        raise KeyboardInterrupt


def lose(storage: Storage) -> None:
    def write_twice() -> None:
        with storage.writer("new/b", overwrite=False) as stream:
            stream.write(b"second")
            storage.write("new/b", b"first")

    with pytest.raises(AlreadyExists, match=r"^new/b: exists already$"):
        write_twice()
    assert storage.read("new/b") == b"first"
    storage.remove("new/b")


@pytest.mark.parametrize("fail", [interrupt, interrupt_text, lose])
def test_a_stream_that_is_not_finished_leaves_the_old_file_and_nothing_else(
    storage: Storage, kept: Callable[[Storage], list[str]], fail: Callable[[Storage], None]
) -> None:
    storage.write("a", b"old")
    fail(storage)
    assert storage.read("a") == b"old"
    assert kept(storage) == ["a"]
    storage.write("new", b"no folder is left in its place")


def test_an_error_in_the_block_is_the_block_s_own(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError), storage.writer("a"):
        raise FileNotFoundError(2, "No such file or directory", "of the block")
    assert paths(storage) == []


def test_streams_work_with_what_the_standard_library_wraps_around_them(storage: Storage) -> None:
    with storage.writer("a.txt") as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
        text.write("ä\r\nb\n")
    assert storage.read("a.txt") == "ä\r\nb\n".encode()
    with storage.reader("a.txt") as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
        assert list(text) == ["ä\r\n", "b\n"]
    with storage.writer("a.zip") as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("one", b"1" * 100_000)
        archive.writestr("two", b"2")
    with storage.reader("a.zip") as stream, zipfile.ZipFile(stream) as archive:
        assert (archive.read("two"), archive.read("one")) == (b"2", b"1" * 100_000)


def test_a_reader_can_seek_and_shows_one_version(storage: Storage) -> None:
    data = os.urandom(3_000_000)
    storage.write("a", data)
    with storage.reader("a") as stream:
        assert stream.read(10) == data[:10]
        storage.write("a", b"new")
        assert stream.tell() == 10
        assert stream.seek(2_999_000) == 2_999_000
        assert stream.read(10_000) == data[2_999_000:]
        assert stream.read() == stream.read(1) == b""
        assert stream.seek(-5, os.SEEK_END) == len(data) - 5
        assert stream.read() == data[-5:]
        stream.seek(0)
        assert stream.read() == data
    assert storage.read("a") == b"new"


def test_a_file_larger_than_the_parts_it_is_sent_in_stays_as_it_is(
    storage: Storage, kept: Callable[[Storage], list[str]]
) -> None:
    data = os.urandom(2 * SPOOL + 1_000_000)
    for overwrite in (False, True):
        data = data[::-1]
        with storage.writer("a", overwrite=overwrite) as stream:
            for start in range(0, len(data), 700_001):
                stream.write(data[start : start + 700_001])
        with storage.reader("a") as stream:
            assert b"".join(iter(lambda: stream.read(1_000_003), b"")) == data
    storage.copy("a", "b")
    storage.move("b", "c")
    assert storage.read("a") == storage.read("c") == data
    assert kept(storage) == ["a", "c"]


def write_one(storage: Storage, data: bytes) -> None:
    storage.write("a", data, overwrite=False)


def write_large(storage: Storage, data: bytes) -> None:
    storage.write("a", data * (SPOOL // len(data) + 1), overwrite=False)


def move_one(storage: Storage, data: bytes) -> None:
    storage.write(f"source-{data.decode()}", data)
    storage.move(f"source-{data.decode()}", "a")


def copy_one(storage: Storage, data: bytes) -> None:
    storage.write(f"source-{data.decode()}", data)
    storage.copy(f"source-{data.decode()}", "a")


@pytest.mark.parametrize("place", [write_one, write_large, move_one, copy_one])
def test_of_many_who_must_not_overwrite_exactly_one_wins(
    storage: Storage, kept: Callable[[Storage], list[str]], place: Callable[[Storage, bytes], None]
) -> None:
    names = [b"%03d" % number for number in range(4 if place is write_large else 8)]
    together = threading.Barrier(len(names))

    def compete(name: bytes) -> bool:
        together.wait()
        try:
            place(storage, name)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(len(names)) as pool:
        won = list(pool.map(compete, names))
    assert won.count(True) == 1
    winner = names[won.index(True)]
    assert storage.read("a").replace(winner, b"") == b""
    assert kept(storage) == paths(storage)


def test_a_reader_sees_the_old_file_or_the_new_one(storage: Storage, scheme: str) -> None:
    rewrites = {"file": 250, "memory": 250, "s3": 50}[scheme]
    versions = [b"a" * 50_000, b"b" * 40_000]
    storage.write("a", versions[0])
    done = threading.Event()

    def rewrite() -> None:
        for _, version in itertools.product(range(rewrites), versions):
            storage.write("a", version)

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(storage.read("a"))
            with storage.reader("a") as stream:
                seen.add(stream.read(20_000) + stream.read())
        return seen

    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        writing = [pool.submit(rewrite) for _ in range(2)]
        try:
            for each in writing:
                each.result()
        finally:
            done.set()
        assert set.union(*(each.result() for each in reading)) <= set(versions)


def test_emptying_a_folder_takes_nothing_from_those_who_write_into_it(storage: Storage, scheme: str) -> None:
    rounds = {"file": 100, "memory": 100, "s3": 10}[scheme]

    def come_and_go(path: str) -> None:
        for number in range(rounds):
            storage.write(path, b"%d" % number)
            assert storage.read(path) == b"%d" % number
            storage.move(path, f"{path}-moved")
            storage.remove(f"{path}-moved")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, ["a/b/1", "a/b/2", "a/c/3", "a/4"]))
    assert paths(storage) == []
