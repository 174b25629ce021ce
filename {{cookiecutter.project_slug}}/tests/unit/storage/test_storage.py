"""What every backend promises; each test runs on all of them."""

import contextlib
import io
import itertools
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from storage import AlreadyExists, InvalidPath, NotFound, Storage, StorageError


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return make(request.param, tmp_path)


def make(scheme: str, folder: Path) -> Storage:
    return Storage((folder / "files").as_uri() if scheme == "file" else "memory://")


def paths(storage: Storage, prefix: str = "", *, recursive: bool = True) -> list[str]:
    return [entry.path for entry in storage.list(prefix, recursive=recursive)]


def test_bytes_come_back_unchanged(storage: Storage) -> None:
    for data in (b"", b"a\r\nb\n\r\x00\xff\x1a", bytes(range(256)) * 8192):
        storage.write("a/b.bin", data)
        assert storage.read("a/b.bin") == data
        with storage.open("a/b.bin") as stream:
            assert stream.read(2) + stream.read() == data


def test_text_is_utf_8_with_its_line_ends(storage: Storage) -> None:
    storage.write("a.txt", "größer\r\n".encode())
    assert storage.read_text("a.txt") == "größer\r\n"
    storage.write("a.txt", b"\xff")
    with pytest.raises(UnicodeDecodeError):
        storage.read_text("a.txt")


def test_a_write_replaces_the_file_unless_it_must_not(storage: Storage) -> None:
    storage.write("a", b"first")
    storage.write("a", b"second")
    with pytest.raises(AlreadyExists, match=r"^a: "):
        storage.write("a", b"third", overwrite=False)
    assert storage.read("a") == b"second"


def test_spellings_of_a_path_are_one_file(storage: Storage) -> None:
    for spelling in ("a//b", "./a/b", "a/./b", "a/b/"):
        storage.write(spelling, spelling.encode())
        assert storage.read_text("a/b") == spelling
    assert paths(storage) == ["a/b"]


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    storage.write("folder/file", b"1")
    calls: list[Callable[[str], object]] = [
        storage.read,
        storage.read_text,
        storage.open,
        storage.stat,
        storage.remove,
        lambda path: storage.move(path, "new"),
        lambda path: storage.copy(path, "new"),
    ]
    for path, call in itertools.product(["none", "folder", "folder/file/below"], calls):
        with pytest.raises(NotFound, match=f"^{path}: no such file$"):
            call(path)
        assert not storage.exists(path)
    assert storage.exists("folder/file")
    assert paths(storage) == ["folder/file"]


def test_a_move_takes_a_file_to_another_path_and_a_copy_leaves_it(storage: Storage) -> None:
    storage.write("a", b"1")
    storage.move("a", "new/b")
    assert paths(storage) == ["new/b"]
    storage.copy("new/b", "c")
    assert paths(storage) == ["c", "new/b"]
    assert storage.read("c") == storage.read("new/b") == b"1"


@pytest.mark.parametrize("method", ["move", "copy"])
def test_moves_and_copies_replace_a_file_only_if_told_to(storage: Storage, method: str) -> None:
    storage.write("a", b"1")
    storage.write("b", b"2")
    with pytest.raises(AlreadyExists, match=r"^b: "):
        getattr(storage, method)("a", "b")
    assert (storage.read("a"), storage.read("b")) == (b"1", b"2")
    getattr(storage, method)("a", "b", overwrite=True)
    assert storage.read("b") == b"1"


def test_a_file_survives_being_put_onto_itself(storage: Storage) -> None:
    storage.write("a", b"1")
    storage.move("a", "./a", overwrite=True)
    storage.copy("a", "a/", overwrite=True)
    assert storage.read("a") == b"1"


def test_removing_a_tree_leaves_its_neighbours(storage: Storage) -> None:
    for path in ("a/1", "a/b/2", "a.txt", "ab/3"):
        storage.write(path, b"")
    assert storage.remove_tree("a") == 2
    assert storage.remove_tree("a") == 0
    storage.remove("ab/3")
    assert paths(storage) == ["a.txt"]


def test_an_entry_tells_size_time_and_a_tag_that_changes(storage: Storage) -> None:
    before = datetime.now(UTC)
    storage.write("a", b"12345")
    first = storage.stat("a")
    assert (first.path, first.size) == ("a", 5)
    assert abs(first.modified - before) < timedelta(seconds=5)
    assert first.modified.tzinfo is UTC
    assert [first] == list(storage.list())
    storage.write("a", b"123456")
    assert storage.stat("a").etag != first.etag


def test_a_listing_is_sorted_by_whole_path(storage: Storage) -> None:
    expected = ["A", "a-b", "a.txt", "a/b.c", "a/b/c", "a0", "ä"]
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
    assert paths(storage, recursive=False) == ["top"]
    assert paths(storage, "a", recursive=False) == ["a/1"]
    assert paths(storage, "none") == paths(storage, "top") == []


def test_a_storage_that_was_never_written_is_empty(storage: Storage) -> None:
    assert paths(storage) == []
    storage.check()


def test_a_file_removed_during_a_listing_is_left_out(storage: Storage) -> None:
    for path in "abc":
        storage.write(path, b"")
    listing = storage.list()
    found = [next(listing).path]
    storage.remove("b")
    assert found + [entry.path for entry in listing] == ["a", "c"]


def test_a_stream_appears_whole_when_it_is_closed(storage: Storage) -> None:
    storage.write("a", b"old")
    stream = storage.open("a", "wb")
    stream.write(b"ne")
    stream.flush()
    assert storage.read("a") == b"old"
    stream.write(b"w")
    stream.close()
    stream.close()
    assert storage.read("a") == b"new"
    assert stream.closed


def interrupt(storage: Storage) -> None:
    with contextlib.suppress(KeyboardInterrupt), storage.open("a", "wb") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def forget(storage: Storage) -> None:
    storage.open("a", "wb").write(b"half")


@pytest.mark.parametrize("fail", [interrupt, forget])
def test_a_stream_that_is_not_finished_leaves_the_old_file_and_nothing_else(
    storage: Storage, tmp_path: Path, fail: Callable[[Storage], None]
) -> None:
    storage.write("a", b"old")
    before = sorted(tmp_path.rglob("*"))
    fail(storage)
    assert storage.read("a") == b"old"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stream_works_with_what_the_standard_library_writes_to(storage: Storage) -> None:
    with storage.open("a.txt", "wb") as stream, io.TextIOWrapper(stream, encoding="utf-8", newline="") as text:
        text.write("ä\r\n")
    assert storage.read_text("a.txt") == "ä\r\n"
    with storage.open("a.zip", "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("name", b"data")
    with storage.open("a.zip") as stream, zipfile.ZipFile(stream) as archive:
        assert archive.read("name") == b"data"


def test_another_mode_of_opening_is_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match=r"^mode 'r', expected 'rb' or 'wb'$"):
        storage.open("a", "r")  # type: ignore[arg-type]


def write_one(storage: Storage, number: int) -> None:
    storage.write("a", b"%d" % number * 1000, overwrite=False)


def move_one(storage: Storage, number: int) -> None:
    storage.write(f"source-{number}", b"%d" % number * 1000)
    storage.move(f"source-{number}", "a")


@pytest.mark.parametrize("place", [write_one, move_one])
def test_of_many_who_must_not_overwrite_exactly_one_wins(
    storage: Storage, place: Callable[[Storage, int], None]
) -> None:
    together = threading.Barrier(8)

    def compete(number: int) -> bool:
        together.wait()
        try:
            place(storage, number)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(compete, range(8)))
    assert won.count(True) == 1
    assert storage.read("a") == b"%d" % won.index(True) * 1000


def test_a_reader_sees_the_old_file_or_the_new_one(storage: Storage) -> None:
    versions = [b"a" * 100_000, b"b" * 100_000]
    storage.write("a", versions[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for version in versions:
                storage.write("a", version)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rewrite)
        seen = {storage.read("a") for _ in range(50)}
        stop.set()
        writing.result()
    assert seen <= set(versions)


PATHS = st.sampled_from(["a", "b/c", "b/d.txt", "ü/e f", "b/ü/g"])
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=20)),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("copy"), PATHS, PATHS),
)


@pytest.mark.parametrize("scheme", ["file", "memory"])
@given(steps=st.lists(STEPS, max_size=12))
@hypothesis_settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_a_storage_does_what_a_dictionary_would(
    scheme: str, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str | bytes]]
) -> None:
    storage = make(scheme, tmp_path_factory.mktemp("model"))
    model: dict[str, bytes] = {}
    for name, path, *rest in steps:
        match name, rest:
            case "write", [bytes(data)]:
                storage.write(path, data)
                model[path] = data
            case "remove", _ if path in model:
                storage.remove(path)
                del model[path]
            case "move" | "copy", [str(target)] if path in model and target not in model:
                getattr(storage, name)(path, target)
                model[target] = model[path]
                if name == "move":
                    del model[path]
            case _:
                with pytest.raises((NotFound, AlreadyExists)):
                    getattr(storage, name)(path, *rest)
    assert {entry.path: storage.read(entry.path) for entry in storage.list()} == model
    assert paths(storage) == sorted(model)


def test_a_url_without_a_backend_is_refused() -> None:
    for url in ("", "/tmp", "file:relative", "file://host/path", "s4://bucket", "files:///tmp"):
        with pytest.raises(ValueError, match=r"scheme, expected file:///path or memory://$"):
            Storage(url)


def test_errors_have_one_base() -> None:
    assert all(issubclass(error, StorageError) for error in (InvalidPath, NotFound, AlreadyExists))
