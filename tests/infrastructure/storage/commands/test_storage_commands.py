"""`storage ls`, `stat`, `read`, `write`, `move`, `copy` and `remove` of `main.py`."""

import io
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from click.testing import CliRunner, Result

from main import cli
from storage import Entry, Storage, StorageError
from storage.disks import Disks
from storage.file import FileBackend
from storage.streams import CHUNK

BYTES = bytes(range(256)) + b"\r\n\x1a\0"
TIME = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture(autouse=True)
def empty_folder(disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in a folder of their own, so that what they leave there is seen."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def files(disks: Disks) -> Storage:
    return disks["default"]


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["storage", *arguments], input=stdin)


def output(*arguments: str, stdin: bytes | None = None) -> str:
    """What a command prints that works, and has nothing to say beside it."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refusal(code: int, *arguments: str, stdin: bytes | None = None) -> str:
    """The last line of a command that fails, which is the only one if the arguments were right."""
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (code, "")
    *usage, line = result.stderr.splitlines()
    assert len(usage) == (3 if code == 2 else 0)
    return line


def paths(files: Storage) -> list[str]:
    return [entry.path for entry in files.list()]


def here() -> list[str]:
    """The local files."""
    return sorted(place.name for place in Path().iterdir())


def age(files: Storage, path: str) -> None:
    """Make a file one that was written at TIME."""
    assert isinstance(files.backend, FileBackend)
    os.utime(Path(files.backend.root, path), (TIME.timestamp(),) * 2)


def test_ls_prints_size_time_and_path_of_each_file(files: Storage) -> None:
    assert output("ls") == ""
    for path, size in {"b.txt": 12, "a/ü ö.txt": 0, "a/b/c": 1_234_567}.items():
        files.write(path, bytes(size))
        age(files, path)
    everything = (
        "     1234567  2026-02-03 04:05  a/b/c\n"
        "           0  2026-02-03 04:05  a/ü ö.txt\n"
        "          12  2026-02-03 04:05  b.txt\n"
    )
    assert output("ls") == everything
    assert output("ls", "a/") == "".join(everything.splitlines(keepends=True)[:2])
    assert output("ls", "--no-recursive") == everything.splitlines(keepends=True)[2]
    assert output("ls", "a", "--no-recursive") == everything.splitlines(keepends=True)[1]
    assert output("ls", "nothing") == ""


def test_ls_and_stat_print_json_of_the_same_fields(files: Storage) -> None:
    assert json.loads(output("ls", "--json")) == []
    files.write('a/"ü"', BYTES)
    age(files, 'a/"ü"')
    [listed] = json.loads(output("ls", "--json"))
    assert listed == json.loads(output("stat", 'a/"ü"', "--json"))
    assert listed == {
        "path": 'a/"ü"',
        "size": len(BYTES),
        "modified": TIME.isoformat(),
        "etag": files.stat('a/"ü"').etag,
    }


def test_stat_prints_a_line_for_each_field(files: Storage) -> None:
    files.write("a", BYTES)
    entry = files.stat("a")
    assert output("stat", "a") == (
        f"path      a\nsize      {len(BYTES)}\nmodified  {entry.modified.isoformat()}\netag      {entry.etag}\n"
    )


def test_any_number_of_files_is_valid_json_and_written_as_it_comes(
    files: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [Entry(f"many/{number:04}", number, TIME, "") for number in range(3000)]
    monkeypatch.setattr(FileBackend, "walk", lambda *arguments, **options: iter(entries))
    assert [entry["path"] for entry in json.loads(output("ls", "--json"))] == [entry.path for entry in entries]

    def broken(*arguments: Any, **options: Any) -> Iterator[Entry]:
        yield entries[0]
        raise StorageError("many: the connection is lost")

    monkeypatch.setattr(FileBackend, "walk", broken)
    result = run("ls", "--json")
    assert (result.exit_code, result.stderr) == (1, "Error: many: the connection is lost\n")
    assert entries[0].path in result.stdout


def test_what_comes_from_standard_input_goes_to_standard_output_unchanged(files: Storage) -> None:
    for data in (BYTES, b"", BYTES * (2 * CHUNK // len(BYTES))):
        for argument in ([], ["-"]):
            assert output("write", "a/b", *argument, stdin=data) == ""
            assert files.read("a/b") == data
            assert run("read", "a/b", *argument).stdout_bytes == data


@pytest.mark.parametrize("data", [BYTES, b"", bytes(9 * CHUNK)])
def test_local_files_are_written_and_read(files: Storage, data: bytes) -> None:
    Path("source").write_bytes(data)
    assert output("write", "a", "source") == ""
    assert files.read("a") == data
    for _ in range(2):
        Path("target").write_bytes(b"old")
        assert output("read", "a", "target") == ""
        assert Path("target").read_bytes() == data
    assert here() == ["source", "target"]


def test_a_disk_is_chosen_by_name(disks: Disks) -> None:
    output("write", "a", "--disk", "media", stdin=BYTES)
    assert [name for name, disk in disks.items() if disk.exists("a")] == ["media"]
    assert run("read", "a", "--disk", "media").stdout_bytes == BYTES
    for arguments in (["ls"], ["stat", "a"], ["copy", "a", "b"], ["move", "b", "c"], ["remove", "a"]):
        assert "c" not in paths(disks["default"])
        output(*arguments, "--disk", "media")
    assert paths(disks["media"]) == ["c"]


@pytest.mark.parametrize("command", ["move", "copy"])
def test_a_file_is_moved_or_copied_and_replaces_another_only_if_told_to(files: Storage, command: str) -> None:
    files.write("a", BYTES)
    assert output(command, "a", "b/c") == ""
    assert files.read("b/c") == BYTES
    assert files.exists("a") is (command == "copy")
    files.write("a", b"another")
    assert refusal(1, command, "a", "b/c") == "Error: b/c: exists already"
    assert files.read("b/c") == BYTES
    output(command, "a", "b/c", "--overwrite")
    assert files.read("b/c") == b"another"


def test_write_replaces_a_file_unless_told_not_to(files: Storage) -> None:
    output("write", "a", "--no-overwrite", stdin=b"first")
    assert refusal(1, "write", "a", "--no-overwrite", stdin=b"second") == "Error: a: exists already"
    assert files.read("a") == b"first"
    output("write", "a", stdin=b"second")
    assert files.read("a") == b"second"


def test_remove_takes_one_file_or_a_whole_folder(files: Storage) -> None:
    for path in ("a", "b/c", "b/d/e", "bc"):
        files.write(path, b"")
    assert output("remove", "a") == ""
    assert refusal(1, "remove", "b") == "Error: b: no such file"
    assert output("remove", "b", "--recursive") == "removed 2 files\n"
    assert output("remove", "b", "--recursive") == "removed 0 files\n"
    assert paths(files) == ["bc"]


@pytest.mark.parametrize("root", ["", ".", "./", "/"])
def test_remove_never_takes_everything(files: Storage, root: str) -> None:
    files.write("a", b"")
    assert "expected" in refusal(1, "remove", root, "--recursive")
    assert paths(files) == ["a"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stat", "a"], "Error: a: no such file"),
        (["read", "a"], "Error: a: no such file"),
        (["read", "a", "target"], "Error: a: no such file"),
        (["move", "a", "b"], "Error: a: no such file"),
        (["copy", "a", "b"], "Error: a: no such file"),
        (["remove", "a"], "Error: a: no such file"),
        (["read", "../a"], "Error: '../a': `..` would leave the folder"),
        (["write", "/etc/a"], "Error: '/etc/a': absolute, expected a relative path"),
        (["ls", "../"], "Error: '../': `..` would leave the folder"),
        (["remove", "../", "--recursive"], "Error: '../': `..` would leave the folder"),
        (["write", "file/a"], "Error: file/a: a file stands where a folder is needed"),
        (["write", "folder"], "Error: folder: a folder, expected a file"),
        (["read", "file", "nowhere/target"], "Error: nowhere/target: No such file or directory"),
    ],
)
def test_what_the_storage_refuses_is_one_line(files: Storage, arguments: list[str], line: str) -> None:
    files.write("file", b"")
    files.write("folder/file", b"")
    assert refusal(1, *arguments, stdin=b"data") == line
    assert paths(files) == ["file", "folder/file"]
    assert here() == []


def test_a_wrong_argument_is_a_usage_error(disks: Disks) -> None:
    line = "Error: Invalid value for '--disk': 'nowhere' is none of the disks batches, default, exports, media"
    for arguments in (["ls"], ["stat", "a"], ["read", "a"], ["write", "a"], ["move", "a", "b"], ["remove", "a"]):
        assert refusal(2, *arguments, "--disk", "nowhere") == line
    assert "'source': No such file or directory" in refusal(2, "write", "a", "source")
    assert "is a directory" in refusal(2, "read", "a", ".")
    assert "Missing argument 'TARGET'" in refusal(2, "move", "a")


def test_wrong_settings_are_one_line_without_the_password(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_URL", "ftp://me:hunter2@host")
    result = run("ls")
    assert result.exit_code == 2
    assert result.stderr.startswith("config/storage.yaml: storage.url: found 'ftp://me:***@host': ftp scheme")
    assert result.stderr.count("\n") == 1


class Failing(io.BytesIO):
    """A stream that breaks off after its first chunk."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise StorageError("a: the connection is lost")
        return super().read(size)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that can be read in part only."""

    def reader(_backend: FileBackend, _path: str) -> BinaryIO:
        return Failing(bytes(2 * CHUNK))

    monkeypatch.setattr(FileBackend, "reader", reader)


@pytest.mark.parametrize("before", [b"old", None])
def test_a_read_that_breaks_off_leaves_the_local_file_as_it_was(
    files: Storage, failing: None, before: bytes | None
) -> None:
    files.write("a", bytes(2 * CHUNK))
    if before:
        Path("target").write_bytes(before)
    assert refusal(1, "read", "a", "target") == "Error: a: the connection is lost"
    assert [Path(name).read_bytes() for name in here()] == ([before] if before else [])


def test_a_write_that_breaks_off_leaves_the_file_as_it_was(files: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    files.write("a", b"old")
    monkeypatch.setattr(os, "fsync", fail)
    assert refusal(1, "write", "a", stdin=BYTES) == "Error: a: No space left on device"
    assert files.read("a") == b"old"


def test_a_local_link_stays_a_link_and_a_pipe_stays_a_pipe(files: Storage) -> None:
    files.write("a", BYTES)
    Path("link").symlink_to("target")
    output("read", "a", "link")
    assert Path("link").is_symlink()
    assert Path("target").read_bytes() == BYTES
    os.mkfifo("pipe")
    pipe = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        output("read", "a", "pipe")
        assert os.read(pipe, 2 * len(BYTES)) == BYTES
    finally:
        os.close(pipe)
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert here() == ["link", "pipe", "target"]


class Terminal(io.StringIO):
    """What a person sees."""

    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_on_a_terminal_for_what_takes_long_and_nowhere_else(
    files: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("long").write_bytes(bytes(9 * CHUNK))
    Path("short").write_bytes(bytes(CHUNK))
    # GitHub Actions and others set it, for colours.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert output("write", "long", "long") == ""
    monkeypatch.setenv("TERM", "xterm")

    def shown(*arguments: str) -> str:
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        cli.main(["storage", *arguments], standalone_mode=False)
        return terminal.getvalue()

    assert "writing" in shown("write", "long", "long")
    assert "reading" in shown("read", "long", "target")
    assert shown("write", "short", "short") == shown("read", "short", "target") == ""


def test_the_group_is_listed_with_its_commands(disks: Disks) -> None:
    commands = run("--help").stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == ["copy", "ls", "move", "read", "remove", "stat", "sync", "write"]
    assert all(len(line.split()) > 2 for line in commands)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_output_that_cannot_be_written_is_one_line(files: Storage) -> None:
    files.write("file", BYTES)
    assert refusal(1, "read", "file", "/dev/full") == "Error: No space left on device"
