"""Paths that no backend may see."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import InvalidPath, Storage

HOSTILE = {
    "climbing": [
        "..",
        "../a",
        "a/..",
        "a/../b",
        "a/../../b",
        "./../a",
        "a//../..",
        "../" * 20 + "etc/passwd",
        "a/b/../..",
    ],
    "absolute": ["/", "//", "/a", "//server/share", "/etc/passwd", "/../a", "/./a"],
    "Windows": ["\\", "..\\a", "a\\..\\b", "\\a", "C:\\a", "\\\\server\\share", "a/..\\..\\b", "a\\"],
    "control": [f"a{character}b" for character in "\0\1\t\n\v\f\r\x1b\x1f\x7f\x80\x85\x9f"]
    + ["\0", "a.txt\0.png", "../\0"],
    "invisible": [f"a{character}b" for character in "\xad\u200b\u200e\u202e\u2028\u2029\u2066\ufeff"],
    "no text": ["\ud800", "a/\udfff", "\udc2e\udc2e/a"],
    "too long": ["a" * 256, "ä" * 128, "a/" + "b" * 256 + "/c", "a/" * 512 + "b", "ä/" * 342],
    "reserved": [".partial-x", "a/.partial-", "a/.partial-x/b"],
}

HARMLESS = [
    "...",
    "..a",
    "a..",
    ". .",
    "~root",
    "-rf",
    "a b",
    "%2e%2e",
    "C:",
    "*",
    "$HOME",
    "日本",
    "a" * 255,
    "a/" * 511 + "b",
]

METHODS: list[Callable[[Any, str], object]] = [
    lambda storage, path: storage.write(path, b""),
    lambda storage, path: storage.write(path, b"", overwrite=False),
    lambda storage, path: storage.read(path),
    lambda storage, path: storage.read_text(path),
    lambda storage, path: storage.open(path, "rb"),
    lambda storage, path: storage.open(path, "wb"),
    lambda storage, path: storage.move(path, "new"),
    lambda storage, path: storage.move("a", path, overwrite=True),
    lambda storage, path: storage.copy(path, "new"),
    lambda storage, path: storage.copy("a", path, overwrite=True),
    lambda storage, path: storage.remove(path),
    lambda storage, path: storage.remove_tree(path),
    lambda storage, path: storage.exists(path),
    lambda storage, path: storage.stat(path),
]


@pytest.fixture
def storages(tmp_path: Path) -> list[Storage]:
    storages = [Storage((tmp_path / "files").as_uri()), Storage("memory://")]
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
def test_every_method_refuses_a_hostile_path(storages: list[Storage], tmp_path: Path, kind: str) -> None:
    methods = [*METHODS, Storage.list]
    cases = itertools.product(storages, methods, HOSTILE[kind])
    assert [path for storage, method, path in cases if not refuses(method, storage, path)] == []
    assert [[entry.path for entry in storage.list()] for storage in storages] == [["a"], ["a"]]
    assert [file.name for file in tmp_path.rglob("*")] == ["files", "a"]


def test_the_root_can_be_listed_and_nothing_else(storages: list[Storage]) -> None:
    for storage, path in itertools.product(storages, ["", ".", "./", "././/"]):
        assert all(refuses(method, storage, path) for method in METHODS)
        assert [entry.path for entry in storage.list(path)] == ["a"]


def test_a_path_that_only_looks_odd_is_a_file_like_any_other(storages: list[Storage]) -> None:
    for storage in storages:
        storage.remove("a")
        for path in HARMLESS:
            storage.write(path, path.encode())
            assert storage.read_text(path) == path
            storage.remove(path)
            assert not storage.exists(path)


def test_the_error_names_the_path(storages: list[Storage]) -> None:
    with pytest.raises(InvalidPath, match=r"^'a/\.\./b': "):
        storages[0].read("a/../b")
