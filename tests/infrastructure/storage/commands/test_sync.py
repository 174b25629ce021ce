"""`storage sync` of `main.py`, and the plan behind it."""

import io
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from main import cli
from storage import Storage, StorageError
from storage.disks import Disks
from storage.file import FileBackend
from storage.streams import CHUNK
from storage.sync import perform, plan

Tree = dict[str, bytes]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FIRST: Tree = {"a": b"1", "b/c": b"22", "b/d": b"", "b0": b"4444"}


@pytest.fixture
def media(disks: Disks) -> Storage:
    """What is synced to the disk `exports` if nothing else is said."""
    fill(disks["media"], FIRST)
    return disks["media"]


@pytest.fixture
def exports(disks: Disks) -> Storage:
    return disks["exports"]


def fill(storage: Storage, tree: Tree) -> None:
    for path, data in tree.items():
        storage.write(path, data)


def tree(storage: Storage) -> Tree:
    return {entry.path: storage.read(entry.path) for entry in storage.list()}


def date(storage: Storage, path: str, time: datetime) -> None:
    """Make a file one that was written at that time."""
    assert isinstance(storage.backend, FileBackend)
    os.utime(Path(storage.backend.root, path), (time.timestamp(),) * 2)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["storage", "sync", *(arguments or ("media", "exports"))])


def output(*arguments: str) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_everything_is_copied_once(media: Storage, exports: Storage) -> None:
    assert output() == "4 files of 7 bytes copied, 0 removed\n"
    assert tree(exports) == tree(media) == FIRST
    etags = [entry.etag for entry in exports.list()]
    assert output() == "0 files of 0 bytes copied, 0 removed\n"
    assert [entry.etag for entry in exports.list()] == etags


def test_what_is_missing_or_newer_or_of_another_size_is_copied_and_nothing_else(
    media: Storage, exports: Storage
) -> None:
    fill(exports, {**FIRST, "only there": b"kept"})
    exports.remove("a")
    media.write("b/c", b"2")
    media.write("b/d", b"longer")
    date(media, "b/d", LONG_AGO)
    media.write("b0", b"NEW!")
    date(media, "b0", datetime.now(UTC) + timedelta(seconds=5))
    fill(media, {"c": b"same"})
    fill(exports, {"c": b"SAME"})
    assert output() == "4 files of 12 bytes copied, 0 removed\n"
    assert tree(exports) == {**tree(media), "c": b"SAME", "only there": b"kept"}


def test_what_only_the_target_has_is_removed_if_told_to(media: Storage, exports: Storage) -> None:
    fill(exports, {"0": b"", "a": b"0", "b/c/d": b"", "b/cc": b"", "z/z": b""})
    date(media, "a", LONG_AGO)
    assert output("media", "exports", "--delete") == "3 files of 6 bytes copied, 4 removed\n"
    assert tree(exports) == {**FIRST, "a": b"0"}


def test_a_file_makes_place_for_a_folder_and_a_folder_for_a_file(media: Storage, exports: Storage) -> None:
    fill(exports, {"a/deep/file": b"", "a/file": b"", "b": b""})
    result = run()
    assert result.exit_code == 1
    assert result.stderr == "Error: a: a folder, expected a file\n"
    output("media", "exports", "--delete")
    assert tree(exports) == FIRST


def test_a_dry_run_says_all_and_does_nothing(media: Storage, exports: Storage) -> None:
    fill(exports, {"a": b"old one", "z": b"z"})
    before = {entry.path: entry.etag for entry in exports.list()}
    printed = output("media", "exports", "--delete", "--dry-run")
    assert printed.splitlines() == [
        "remove z",
        "copy   a",
        "copy   b/c",
        "copy   b/d",
        "copy   b0",
        "4 files of 7 bytes would be copied, 1 would be removed",
    ]
    assert json.loads(output("media", "exports", "--delete", "--dry-run", "--json")) != []
    assert {entry.path: entry.etag for entry in exports.list()} == before


def test_json_names_each_step(media: Storage, exports: Storage) -> None:
    exports.write("z", b"z")
    removed = exports.stat("z")
    steps = json.loads(output("media", "exports", "--delete", "--json"))
    assert [(step["action"], step["path"], step["size"]) for step in steps] == [
        ("remove", "z", 1),
        *(("copy", path, len(data)) for path, data in FIRST.items()),
    ]
    assert steps[0] == {
        "action": "remove",
        "path": "z",
        "size": 1,
        "modified": removed.modified.isoformat(),
        "etag": removed.etag,
    }
    assert json.loads(output("media", "exports", "--json")) == []


def test_a_folder_and_a_url_are_places_too(media: Storage, disks: Disks, tmp_path: Path) -> None:
    url = f"{(tmp_path / 'by url').as_uri()}?file_mode=0600"
    output("media", "./größe %20 #?")
    assert (tmp_path / "größe %20 #?" / "b" / "c").read_bytes() == b"22"
    output("./größe %20 #?", url)
    assert (tmp_path / "by url" / "b" / "c").stat().st_mode & 0o777 == 0o600
    output(url, "default")
    assert tree(disks["default"]) == FIRST


def test_what_is_not_local_lies_in_nothing_else(media: Storage) -> None:
    assert output("media", "memory://") == "4 files of 7 bytes copied, 0 removed\n"


def test_a_disk_goes_before_a_folder_of_its_name(media: Storage, disks: Disks, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "local").touch()
    output("media", "exports")
    output("./media", "default")
    assert (tree(disks["exports"]), tree(disks["default"])) == (FIRST, {"local": b""})


def test_an_empty_disk_is_nothing_to_copy_and_empties_the_other_only_if_told_to(disks: Disks, exports: Storage) -> None:
    fill(exports, FIRST)
    assert output() == "0 files of 0 bytes copied, 0 removed\n"
    assert tree(exports) == FIRST
    assert output("media", "exports", "--delete") == "0 files of 0 bytes copied, 4 removed\n"


@pytest.mark.parametrize(
    ("source", "target", "line"),
    [
        (
            "nowhere",
            "media",
            "'nowhere' is none of the disks batches, default, exports, media; write a folder as ./name",
        ),
        (
            "media",
            "nowhere",
            "'nowhere' is none of the disks batches, default, exports, media; write a folder as ./name",
        ),
        ("media", "", "'' is none of the disks batches, default, exports, media; write a folder as ./name"),
        ("./nowhere", "media", "'./nowhere': there is no such folder"),
        ("./file", "media", "'./file': there is no such folder"),
        ("media", "app/media/inner", "'app/media/inner' is none of the disks"),
        ("media", "./app/media/inner", "SOURCE and TARGET lie in one another"),
        ("./app", "media", "SOURCE and TARGET lie in one another"),
        ("media", "./app/media", "SOURCE and TARGET lie in one another"),
        ("ftp://me:hunter2@host", "media", "ftp scheme, expected file:///path"),
        ("media", "s3://bucket?secret_access_key=hunter2&bogus=1", "'bogus'"),
    ],
)
def test_a_place_that_is_none_is_a_usage_error_and_deletes_nothing(
    media: Storage, tmp_path: Path, source: str, target: str, line: str
) -> None:
    (tmp_path / "file").touch()
    result = run(source, target, "--delete")
    assert result.exit_code == 2
    assert line in result.stderr.splitlines()[-1]
    assert "hunter2" not in result.stderr
    assert tree(media) == FIRST


def test_what_was_interrupted_goes_on_where_it_stopped(
    media: Storage, exports: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.write("b/d", bytes(2 * CHUNK))
    exports.write("b/d", b"old")
    reader = FileBackend.reader

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise StorageError("b/d: the connection is lost")
            return super().read(size)

    with monkeypatch.context() as broken:

        def read(backend: FileBackend, path: str) -> BinaryIO:
            return Failing(bytes(2 * CHUNK)) if path == "b/d" else reader(backend, path)

        broken.setattr(FileBackend, "reader", read)
        result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: b/d: the connection is lost\n"
    assert tree(exports) == {"a": b"1", "b/c": b"22", "b/d": b"old"}
    assert [step["path"] for step in json.loads(output("media", "exports", "--json"))] == ["b/d", "b0"]
    assert tree(exports) == tree(media)


def test_a_bar_is_shown_on_a_terminal_only(media: Storage, exports: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run().stderr == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    cli.main(["storage", "sync", "media", "default"], standalone_mode=False)
    assert "syncing" in terminal.getvalue()


def without_conflicts(tree: Tree) -> Tree:
    """What a storage can hold: no file is a folder as well."""
    return {path: data for path, data in tree.items() if not any(other.startswith(f"{path}/") for other in tree)}


names = st.sampled_from(["a", "b", "a.b", "a0", "a-", "ä"])
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=2), max_size=8).map(
    without_conflicts
)


def in_memory(tree: Tree) -> Storage:
    storage = Storage("memory://")
    fill(storage, tree)
    return storage


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(trees, trees)
def test_after_a_sync_with_delete_both_hold_the_same(before: Tree, wanted: Tree) -> None:
    target, source = in_memory(before), in_memory(wanted)
    steps = sorted(plan(source, target, delete=True), key=lambda step: step.action, reverse=True)
    assert list(plan(source, target)) == [step for step in steps if step.action == "copy"]
    touched = {(step.action, step.entry.path) for step in steps}
    assert len(touched) == len(steps)
    assert {path for action, path in touched if action == "remove"} == before.keys() - wanted.keys()
    for step in steps:
        perform(step, source, target)
    assert tree(target) == tree(source) == wanted
    assert list(plan(source, target, delete=True)) == []
