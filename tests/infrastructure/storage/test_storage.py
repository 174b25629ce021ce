"""What every backend promises; each test runs on all of them."""

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

from storage import AlreadyExists, InvalidPath, NotFound, Storage, StorageError
from storage.objects import SPOOL

MISSING = r"^{}: no such file$"
# Object stores have no folders, so that `a` and `a/b` can be files side by side.
FLAT = ["memory", "s3"]


def paths(storage: Storage, prefix: str = "") -> list[str]:
    return [entry.path for entry in storage.list(prefix)]


def test_bytes_come_back_unchanged(storage: Storage) -> None:
    for data in (b"", b"a\r\nb\n\r\x00\xff\x1a", bytes(range(256)) * 8192):
        storage.write("a/b.bin", data)
        assert storage.read("a/b.bin") == data
        with storage.reader("a/b.bin") as stream:
            assert stream.read(2) + stream.read() == data


def test_a_write_replaces_the_file_unless_it_must_not(storage: Storage) -> None:
    storage.write("a", b"first", overwrite=False)
    storage.write("a", b"second")
    with pytest.raises(AlreadyExists, match=r"^a: exists already$"):
        storage.write("a", b"third", overwrite=False)
    assert storage.read("a") == b"second"


def test_spellings_of_a_path_are_one_file(storage: Storage) -> None:
    for spelling in ("a//b", "./a/b", "a/./b", "a/b/"):
        storage.write(spelling, spelling.encode())
        assert storage.read("a/b") == spelling.encode()
    assert paths(storage) == ["a/b"]


@pytest.mark.parametrize("path", ["none", "none/none", "folder", "folder/file/below"])
def test_what_is_not_there_is_not_found(storage: Storage, path: str) -> None:
    storage.write("folder/file", b"1")
    calls: list[Callable[[str], object]] = [
        storage.read,
        storage.reader,
        storage.stat,
        storage.remove,
        lambda path: storage.move(path, "new"),
        lambda path: storage.move(path, "new", overwrite=True),
        lambda path: storage.move(path, path, overwrite=True),
        lambda path: storage.copy(path, "new"),
        lambda path: storage.copy(path, "new", overwrite=True),
        lambda path: storage.copy(path, path, overwrite=True),
    ]
    for call in calls:
        with pytest.raises(NotFound, match=MISSING.format(path)):
            call(path)
    assert not storage.exists(path)
    assert storage.exists("folder/file")
    assert paths(storage) == ["folder/file"]


def test_a_move_takes_a_file_to_another_path_and_a_copy_leaves_it(storage: Storage) -> None:
    for data in (b"", b"1"):
        storage.write("a", data)
        storage.move("a", "new/b")
        assert paths(storage) == ["new/b"]
        storage.copy("new/b", "c/d/e")
        assert paths(storage) == ["c/d/e", "new/b"]
        assert storage.read("c/d/e") == storage.read("new/b") == data
        storage.remove("new/b")
        storage.remove("c/d/e")


@pytest.mark.parametrize("method", ["move", "copy"])
def test_moves_and_copies_replace_a_file_only_if_told_to(storage: Storage, method: str) -> None:
    storage.write("a", b"1")
    storage.write("b", b"2")
    with pytest.raises(AlreadyExists, match=r"^b: exists already$"):
        getattr(storage, method)("a", "b")
    assert (storage.read("a"), storage.read("b")) == (b"1", b"2")
    getattr(storage, method)("a", "b", overwrite=True)
    assert storage.read("b") == b"1"
    assert storage.exists("a") is (method == "copy")


@pytest.mark.parametrize("method", ["move", "copy"])
def test_a_file_survives_being_put_onto_itself(storage: Storage, method: str) -> None:
    storage.write("a", b"1")
    getattr(storage, method)("a", "./a", overwrite=True)
    with pytest.raises(AlreadyExists, match=r"^a: exists already$"):
        getattr(storage, method)("a", "a/")
    assert storage.read("a") == b"1"
    assert paths(storage) == ["a"]


def test_a_file_that_is_removed_is_gone(storage: Storage) -> None:
    storage.write("a/b", b"1")
    storage.remove("a/b")
    assert not storage.exists("a/b")
    with pytest.raises(NotFound, match=MISSING.format("a/b")):
        storage.remove("a/b")
    storage.write("a/b", b"2", overwrite=False)
    assert storage.read("a/b") == b"2"


@pytest.mark.parametrize(
    "empty",
    [
        lambda storage: storage.remove("a/b/c"),
        lambda storage: storage.move("a/b/c", "d"),
    ],
    ids=["remove", "move"],
)
def test_folders_come_and_go_with_the_files_in_them(storage: Storage, empty: Callable[[Storage], object]) -> None:
    storage.write("a/b/c", b"1")
    empty(storage)
    storage.write("a", b"2")
    assert storage.read("a") == b"2"


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


def test_a_listing_holds_what_is_below_a_folder(storage: Storage) -> None:
    everything = ["a/1", "a/b/2", "a/b/c/3", "ab/4", "top"]
    for path in everything:
        storage.write(path, b"")
    assert paths(storage) == everything
    assert paths(storage, "a/") == everything[:3]
    assert paths(storage, "a/b") == everything[1:3]
    assert paths(storage, "none") == paths(storage, "none/none") == paths(storage, "top") == []


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
    if scheme in FLAT:
        # What a store has sent before is handed out.
        found = [path for path in found if path not in ("b", "c/d")]
    assert found == ["a", "e"]


def test_a_listing_of_many_files_is_complete(storage: Storage, scheme: str) -> None:
    count = {"s3": 2050}.get(scheme, 500)  # A page of S3 holds 1,000.
    expected = sorted([f"folder/{number}" for number in range(count)] + ["a", "z"])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: storage.write(path, b"x"), expected))
    assert paths(storage) == expected
    assert paths(storage, "folder") == expected[1:-1]


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


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e",
        "%",
        "a b",
        " ",
        "*?[a]",
        "日本",
        "C:",
        "a+b&c=d#e;f",
        "\"'<>|`$HOME",
        "👩\u200d👩\u200d👧",
        "...",
        "~root",
        "-rf",
        ".hidden",
        ".part",
        " .partial-",
        "..a",
        "e\u0301",
        "a" * 255,
        "ü" * 127,
    ],
)
def test_a_path_that_only_looks_odd_is_a_file_like_any_other(storage: Storage, name: str) -> None:
    for path in (name, f"folder/{name}", f"{name[:100]}-folder/file"):
        storage.write(path, name.encode())
        assert storage.read(path) == name.encode()
        assert storage.stat(path).size == len(name.encode())
        assert paths(storage) == [path]
        storage.copy(path, "copy")
        storage.remove(path)
        storage.move("copy", path)
        assert paths(storage, path.rpartition("/")[0]) == [path]
        storage.remove(path)
    assert paths(storage) == []


def test_a_file_is_not_a_folder_except_in_an_object_store(storage: Storage, scheme: str) -> None:
    storage.write("a", b"1")
    storage.write("folder/b/c", b"2")
    storage.write("source", b"3")
    kinds = {"a file stands where a folder is needed": ["a/b", "a/b/c"], "a folder, expected a file": ["folder"]}
    cases = [(path, reason) for reason, places in kinds.items() for path in places]
    for (path, reason), overwrite in itertools.product(cases, [True, False]):
        calls: list[Callable[[], object]] = [
            lambda: storage.write(path, b"4", overwrite=overwrite),  # noqa: B023
            lambda: storage.copy("source", path, overwrite=overwrite),  # noqa: B023
            lambda: storage.move("source", path, overwrite=overwrite),  # noqa: B023
        ]
        for call in calls:
            if scheme in FLAT:
                call()
                storage.move(path, "source", overwrite=True)
            else:
                # Whether what exists already is a folder makes no difference.
                with pytest.raises(StorageError, match=f"^{path}: ({reason}|exists already)$"):
                    call()
    assert paths(storage) == ["a", "folder/b/c", "source"]
    assert (storage.read("a"), storage.read("folder/b/c")) == (b"1", b"2")


def test_errors_have_one_base() -> None:
    assert all(issubclass(error, StorageError) for error in (InvalidPath, NotFound, AlreadyExists))
