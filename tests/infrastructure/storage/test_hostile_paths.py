"""Paths that no backend may see."""

import itertools
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storage import InvalidPath, Storage
from storage.paths import LONGEST_NAME, LONGEST_PATH, PARTIAL, normalise

CLIMBING = ["..", "../a", "a/..", "a/../b", "a/../../b", "./../a", "a//../..", "a/b/../..", "a/../", ".././", "a/./.."]
INVISIBLE = "\xad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202d\u202e\u2060\u2064\u2066\u2069\ufeff\ufff9\ufffb"
CONTROL = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
HOSTILE = {
    "climbing": [
        *CLIMBING,
        *(f"{'../' * depth}etc/passwd" for depth in (1, 2, 5, 20, 100)),
        *(f"{'a/' * depth}{'../' * (depth + 1)}b" for depth in (1, 2, 5, 20)),
    ],
    "absolute": [
        "/",
        "//",
        "///",
        "/a",
        "/.",
        "/..",
        "//server/share",
        "/etc/passwd",
        "/../a",
        "/./a",
        "//../a",
        "/a/../b",
    ],
    "Windows": [
        *(path.replace("/", "\\") for path in CLIMBING if "/" in path),
        *(
            "\\",
            "\\a",
            "C:\\a",
            "C:\\..\\a",
            "\\\\server\\share",
            "\\\\?\\C:\\a",
            "a/..\\..\\b",
            "a\\",
            "..\\",
            "a\\b/c",
        ),
    ],
    "control": [
        *(f"a{character}b" for character in CONTROL),
        *("\0", "a.txt\0.png", "../\0", "a/\0/b", "\0/a", "a\n", "\na", "a\r\nb: c", "\x1b[2J", "a\0/../b"),
    ],
    "invisible": [
        *(f"a{character}b" for character in INVISIBLE),
        *(f"folder/{character}" for character in INVISIBLE),
        *(f"..{character}/a" for character in INVISIBLE),
    ],
    "no text": ["\ud800", "a/\udfff", "\udc2e\udc2e/a", "\udc2f", "a\udcffb", "\ud83d", "\ude00\ud83d", "a/\udc80/b"],
    "too long": [
        *(
            "a" * 256,
            "a" * 300,
            "ä" * 128,
            "😀" * 64,
            "a/" + "b" * 256 + "/c",
            "a/" * 512 + "b",
            "ä/" * 342,
            "a" * 100_000,
        ),
        *("./" * 513 + "a", "a" + "/" * 1024),
    ],
    "reserved": [
        PARTIAL,
        f"{PARTIAL}{'0' * 32}",
        f"{PARTIAL}/a",
        f"./{PARTIAL}x",
        f"a/{PARTIAL}x",
        f"a//{PARTIAL}x/./b",
        f"a/{PARTIAL}/",
    ],
}

METHODS: list[Callable[[Any, str], object]] = [
    lambda storage, path: storage.write(path, b""),
    lambda storage, path: storage.write(path, b"", overwrite=False),
    lambda storage, path: storage.read(path),
    lambda storage, path: storage.reader(path),
    lambda storage, path: storage.writer(path).__enter__(),
    lambda storage, path: storage.move(path, "new"),
    lambda storage, path: storage.move("a", path, overwrite=True),
    lambda storage, path: storage.copy(path, "new"),
    lambda storage, path: storage.copy("a", path, overwrite=True),
    lambda storage, path: storage.remove(path),
    lambda storage, path: storage.exists(path),
    lambda storage, path: storage.stat(path),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def storages(folder: Path) -> list[Storage]:
    storages = [Storage(folder.as_uri()), Storage("memory://")]
    for storage in storages:
        storage.write("a", b"mine")
    return storages


def refuses(method: Callable[[Any, str], object], storage: Storage, path: str) -> bool:
    try:
        method(storage, path)
    except InvalidPath:
        return True
    return False


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_method_refuses_a_hostile_path(storages: list[Storage], folder: Path, kind: str) -> None:
    before = sorted(folder.parent.rglob("*"))
    cases = itertools.product(storages, [*METHODS, Storage.list], HOSTILE[kind])
    assert [path for storage, method, path in cases if not refuses(method, storage, path)] == []
    assert [[entry.path for entry in storage.list()] for storage in storages] == [["a"], ["a"]]
    assert sorted(folder.parent.rglob("*")) == before


def test_the_root_can_be_listed_and_nothing_else(storages: list[Storage]) -> None:
    for storage, path in itertools.product(storages, ["", ".", "./", "././/"]):
        assert all(refuses(method, storage, path) for method in METHODS)
        assert [entry.path for entry in storage.list(path)] == ["a"]


def test_paths_may_be_as_long_and_as_deep_as_the_limits(storages: list[Storage]) -> None:
    for storage, path in itertools.product(storages, ["a" * LONGEST_NAME, "a/" * (LONGEST_PATH // 2 - 1) + "bc"]):
        for entry in list(storage.list()):
            storage.remove(entry.path)
        storage.write(path, b"1")
        assert [entry.path for entry in storage.list()] == [path]
        storage.remove(path)


# Names that come close to what is refused, and any text.
NAMES = st.one_of(st.sampled_from(["", ".", "..", "...", PARTIAL, "\\", "~", "C:", "a" * 255]), st.text(max_size=8))
PATHS = st.one_of(st.lists(NAMES, max_size=6).map("/".join), st.text(max_size=30))
PROPERTIES = settings(
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(path=PATHS)
@example("a/./b//")
@PROPERTIES
def test_what_is_normal_stays_so_and_lies_inside(path: str) -> None:
    for folder in (True, False):
        try:
            normal = normalise(path, folder=folder)
        except InvalidPath:
            continue
        assert normalise(normal, folder=folder) == normal
        names = normal.split("/") if normal else []
        assert not {"", ".", ".."} & set(names)
        assert not any(name.startswith(PARTIAL) for name in names)
        assert (Path("/root") / normal).is_relative_to("/root")
        assert not {unicodedata.category(character) for character in normal} & {"Cc", "Cs", "Zl", "Zp"}
        assert normal.encode().decode() == normal
        assert names or folder


@given(path=PATHS)
@example("👩\u200d👩\u200d👧/\u200c")
@PROPERTIES
def test_what_is_accepted_can_be_written_and_read(tmp_path: Path, path: str) -> None:
    storage = Storage(tmp_path.as_uri())
    try:
        storage.write(path, path.encode())
    except InvalidPath:
        return
    normal = normalise(path)
    assert storage.read(path) == path.encode()
    assert [entry.path for entry in storage.list()] == [normal]
    assert (tmp_path / normal).read_text() == path
    storage.remove(path)
    assert [entry.path for entry in storage.list()] == []
