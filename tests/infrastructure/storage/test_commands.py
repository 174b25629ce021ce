"""`main.py storage ls`, `read`, `write`, `move` and `remove`."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config import load
from main import cli
from storage import Storage
from storage.disks import Disks, open_disks
from storage.local import LocalBackend

PROJECT = Path(__file__).parents[3]
BYTES = bytes(range(256)) + b"\r\n\x1a\0"
LARGE = BYTES * 10_000
TIME = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture(autouse=True)
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    """The disks that the commands use, in an app folder of the test's own. They run in an empty folder beside it."""
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APP_ENV", "testing")
    monkeypatch.setenv("APP_DIR", str(tmp_path / "app"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return open_disks(load())


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


def refusal(*arguments: str, stdin: bytes | None = None) -> str:
    """The only line of a command that fails."""
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    return line


def paths(files: Storage) -> list[str]:
    return [entry.path for entry in files.list()]


def test_ls_prints_size_time_and_path_of_each_file(files: Storage) -> None:
    assert output("ls") == ""
    assert isinstance(files.backend, LocalBackend)
    for path, size in {"b.txt": 12, "a/ü ö.txt": 0, "a/b/c": 1_234_567}.items():
        files.write(path, bytes(size))
        os.utime(files.backend.root / path, (TIME.timestamp(),) * 2)
    everything = (
        "     1234567  2026-02-03 04:05  a/b/c\n"
        "           0  2026-02-03 04:05  a/ü ö.txt\n"
        "          12  2026-02-03 04:05  b.txt\n"
    )
    assert output("ls") == everything
    assert output("ls", "a/") == "".join(everything.splitlines(keepends=True)[:2])
    assert output("ls", "nothing") == ""


def test_what_comes_from_standard_input_goes_to_standard_output_unchanged(files: Storage) -> None:
    for data in (BYTES, b"", LARGE):
        for argument in ([], ["-"]):
            assert output("write", "a/b", *argument, stdin=data) == ""
            assert files.read("a/b") == data
            assert run("read", "a/b").stdout_bytes == data


@pytest.mark.parametrize("data", [BYTES, b"", LARGE])
def test_a_local_file_is_written(files: Storage, data: bytes) -> None:
    Path("source").write_bytes(data)
    files.write("a", b"old")
    assert output("write", "a", "source") == ""
    assert files.read("a") == data


def test_a_disk_is_chosen_by_name(disks: Disks) -> None:
    output("--disk", "media", "write", "a", stdin=BYTES)
    assert [name for name, disk in disks.items() if disk.exists("a")] == ["media"]
    assert run("--disk", "media", "read", "a").stdout_bytes == BYTES
    output("--disk", "media", "move", "a", "b")
    assert output("--disk", "media", "ls").endswith("  b\n")
    output("--disk", "media", "remove", "b")
    assert paths(disks["media"]) == []


def test_a_move_replaces_a_file_only_if_told_to(files: Storage) -> None:
    files.write("a", BYTES)
    assert output("move", "a", "b/c") == ""
    assert (paths(files), files.read("b/c")) == (["b/c"], BYTES)
    files.write("a", b"another")
    assert refusal("move", "a", "b/c") == "Error: b/c: exists already"
    assert files.read("b/c") == BYTES
    output("move", "a", "b/c", "--overwrite")
    assert files.read("b/c") == b"another"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["read", "a"], "Error: a: no such file"),
        (["move", "a", "b"], "Error: a: no such file"),
        (["remove", "a"], "Error: a: no such file"),
        (["remove", "folder"], "Error: folder: no such file"),
        (["remove", ""], "Error: '': expected names with / between them, and without `..`"),
        (["read", "../a"], "Error: '../a': expected names with / between them, and without `..`"),
        (["write", "/etc/a"], "Error: '/etc/a': absolute, expected a relative path"),
        (["ls", "../"], "Error: '../': expected names with / between them, and without `..`"),
        (["write", "file/a"], "Error: file/a: a file stands where a folder is needed"),
        (["write", "folder"], "Error: folder: a folder, expected a file"),
        (["--disk", "x", "ls"], "Error: there is no disk 'x'; storage.disks names default, media, exports, batches"),
    ],
)
def test_what_the_storage_refuses_is_one_line(files: Storage, arguments: list[str], line: str) -> None:
    files.write("file", b"")
    files.write("folder/file", b"")
    assert refusal(*arguments, stdin=b"data") == line
    assert paths(files) == ["file", "folder/file"]


def test_wrong_settings_are_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_URL", "ftp://me:hunter2@host")
    result = run("ls")
    assert result.exit_code == 2
    assert result.stderr.startswith("config/storage.yaml: storage.url: found 'ftp://me:***@host': ftp scheme")
    assert result.stderr.count("\n") == 1


def start(*arguments: str, stdin: int | None = None, stdout: int | None = None) -> "subprocess.Popen[bytes]":
    """A command as a shell runs it."""
    command = [sys.executable, str(PROJECT / "main.py"), "storage", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE)


def test_ctrl_c_leaves_the_file_as_it_was(files: Storage) -> None:
    files.write("a", b"old")
    assert isinstance(files.backend, LocalBackend)
    root = files.backend.root
    with start("write", "a", stdin=subprocess.PIPE) as writer:
        assert writer.stdin
        writer.stdin.write(LARGE)
        writer.stdin.flush()
        while len(list(root.iterdir())) == 1:
            assert writer.poll() is None
        writer.send_signal(signal.SIGINT)
        _, errors = writer.communicate()
    assert (writer.returncode, errors) == (1, b"\nAborted!\n")
    assert files.read("a") == b"old"
    assert [place.name for place in root.iterdir()] == ["a"]


def test_output_that_cannot_be_written_is_one_line_and_output_that_is_not_wanted_none(files: Storage) -> None:
    files.write("a", LARGE)
    with Path("/dev/full").open("wb") as full, start("read", "a", stdout=full.fileno()) as reader:
        assert reader.communicate()[1] == b"Error: [Errno 28] No space left on device\n"
    assert reader.returncode == 1
    with start("read", "a", stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        assert reader.stdout.read(1) == BYTES[:1]
        reader.stdout.close()
        assert reader.stderr
        assert reader.stderr.read() == b""
