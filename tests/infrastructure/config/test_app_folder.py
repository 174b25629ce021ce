"""Making, mending and refusing the app folder."""

import grp
import json
import os
import pwd
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config import AppDir, AppDirError, appdir_changes
from config.appdir import FILES, FOLDERS, PARTS, application

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give things to others")
# Those two are on every Unix, and are never this process's own.
USER, GROUP = "nobody", "daemon"


@pytest.fixture
def folder(tmp_path: Path) -> AppDir:
    return AppDir(tmp_path / "new" / "app")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def state(folder: AppDir) -> dict[str, tuple[object, ...]]:
    """Everything about everything in it, as far as `make` could change it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder.path.parent, folder.path, *folder.path.rglob("*")):
        if path.exists() or path.is_symlink():
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
            found[str(path)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_ino,
                content,
            )
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def problems(folder: AppDir, user: str | None = None, group: str | None = None) -> list[str]:
    """Why it is refused, by `make` and `check` alike; nothing may have been changed."""
    before = state(folder)
    with pytest.raises(AppDirError) as made:
        folder.make(user, group)
    with pytest.raises(AppDirError) as checked:
        folder.check(user, group)
    assert state(folder) == before
    assert made.value.problems == checked.value.problems
    assert all("\n" not in problem for problem in made.value.problems)
    return list(made.value.problems)


def test_everything_the_service_needs_is_made_and_named(folder: AppDir) -> None:
    made = [str(change.path) for change in folder.make()]
    places = {str(path) for path in (folder.path, *folder.path.rglob("*"))}
    assert set(made) == places
    assert len(made) == len(places)
    assert {path.removeprefix(f"{folder.path}/") for path in places} - {str(folder.path)} == {*FILES, *FOLDERS}
    assert folder.database.parent == folder.data
    assert folder.check() == []


def test_each_part_has_its_line_in_the_folder(folder: AppDir) -> None:
    folder.make()
    lines = (folder.path / "README.md").read_text().splitlines()
    for name, part in PARTS.items():
        [line] = [line for line in lines if line.startswith(f"| `{name}/` |")]
        assert part.purpose in line
    assert "| `cache/` | what can be made again | no | yes |" in lines
    assert json.loads(folder.marker.read_text()) == {"application": application(), "format": 1}


def test_a_second_time_makes_and_changes_nothing(folder: AppDir) -> None:
    folder.make()
    before = state(folder)
    assert folder.make() == []
    assert state(folder) == before


def test_a_dry_run_says_the_same_and_writes_nothing(folder: AppDir) -> None:
    before = state(folder)
    would = folder.make(dry_run=True)
    assert state(folder) == before
    assert not folder.path.parent.exists()
    assert [(change.path, change.done) for change in would] == [(change.path, change.done) for change in folder.make()]

    folder.data.chmod(0o777)
    (folder.path / "cache").rmdir()
    folder.env_file.write_text("PORT=1\n")
    before = state(folder)
    would = folder.make(dry_run=True)
    assert state(folder) == before
    assert [(change.path, change.done) for change in would] == [(change.path, change.done) for change in folder.make()]
    assert len(would) == 3


def test_what_is_in_files_stays_as_it_is(folder: AppDir) -> None:
    folder.data.mkdir(parents=True)
    folder.database.write_bytes(b"tables")
    folder.env_file.write_text("SECRET_KEY=mine")
    (folder.path / "README.md").write_text("mine")
    folder.make()
    assert folder.database.read_bytes() == b"tables"
    assert folder.env_file.read_text() == "SECRET_KEY=mine"
    assert (folder.path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077])
def test_only_owner_and_group_may_look_in_whatever_the_umask(folder: AppDir, mask: int) -> None:
    with umask(mask):
        folder.make()
    assert mode(folder.path.parent) == 0o755
    for path in (folder.path, *folder.path.rglob("*")):
        expected = {"backups": 0o700, ".env": 0o600}.get(path.name, 0o750 if path.is_dir() else 0o640)
        assert mode(path) == expected, path


def test_wrong_modes_are_found_and_mended_and_bits_of_an_administrator_stay(folder: AppDir) -> None:
    folder.make()
    wrong = {"": 0o755, "data": 0o2770, "data/uploads": 0o1700, "backups": 0o750, ".env": 0o644, "appdir.json": 0o666}
    for name, bits in wrong.items():
        (folder.path / name).chmod(bits)
    found = {str(path): what for path, what, _ in folder.check()}
    assert found[str(folder.data)] == "mode 0770, expected 0750"
    assert len(found) == len(wrong)
    assert len(folder.make()) == len(wrong)
    assert folder.check() == []
    assert {name: mode(folder.path / name) for name in wrong} == {
        "": 0o750,
        "data": 0o2750,
        "data/uploads": 0o1750,
        "backups": 0o700,
        ".env": 0o600,
        "appdir.json": 0o640,
    }


def test_a_secret_that_the_group_could_read_stays_so_and_one_of_its_own_too(folder: AppDir) -> None:
    folder.make()
    for bits in (0o640, 0o600):
        folder.env_file.chmod(bits)
        assert folder.make() == []


def test_each_installation_gets_a_secret_of_its_own(tmp_path: Path) -> None:
    folders = [AppDir(tmp_path / name) for name in "abc"]
    for folder in folders:
        folder.make()
    assert len({folder.env_file.read_text() for folder in folders}) == 3


def test_a_secret_is_added_to_a_file_that_has_none_and_nothing_else_is_changed(folder: AppDir) -> None:
    folder.make()
    for text in ("PORT=9000", "# mine\r\nPORT=9000\r\n", "PORT=9000\nSECRET_KEY=\nA='x\ny'\n"):
        folder.env_file.write_bytes(text.encode())
        assert [what for _, what, _ in folder.check()] == ["has no SECRET_KEY"]
        assert [change.done for change in folder.make()] == ["given a new SECRET_KEY"]
        written = folder.env_file.read_bytes().decode()
        kept, _, secret = written.rstrip("\n").rpartition("\nSECRET_KEY=")
        assert kept == text.replace("SECRET_KEY=\n", "").rstrip()
        assert len(secret) == 43
        assert mode(folder.env_file) == 0o600
        assert folder.make() == []


def test_what_was_cut_off_while_it_was_written_is_no_half_file(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(*_: object, **__: object) -> None:
        raise OSError(5, "power cut")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", power_cut)
        with pytest.raises(AppDirError, match=f"^{folder.marker}: cannot be written: power cut$"):
            folder.make()
    assert not folder.marker.exists()
    assert [path.name for path in folder.path.iterdir()] == ["appdir.json.new"]
    folder.make()
    assert folder.check() == []
    assert not list(folder.path.glob("*.new"))


def test_many_who_make_it_at_once_get_one_secret(folder: AppDir) -> None:
    made: list[int] = []
    threads = [threading.Thread(target=lambda: made.append(len(folder.make()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert folder.env_file.read_text().count("SECRET_KEY") == 1
    assert folder.check() == []


def test_all_that_is_in_the_way_is_told_at_once(folder: AppDir, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    folder.make()
    for name in ("data/uploads", "cache"):
        (folder.path / name).rmdir()
    (folder.path / "data/uploads").write_text("mine")
    (folder.path / "cache").symlink_to(elsewhere)
    (folder.path / "work").rename(tmp_path / "work")
    (folder.path / "work").symlink_to("nowhere")
    folder.env_file.unlink()
    folder.env_file.symlink_to(elsewhere / "file")
    (folder.path / "README.md").unlink()
    (folder.path / "README.md").mkdir()
    folder.marker.write_text('{"application": "shop", "format": 1}')
    assert problems(folder, "no-such-user", "no-such-group") == [
        "--user: found 'no-such-user', expected a user of this machine; make one with `useradd`",
        "--group: found 'no-such-group', expected a group of this machine; make one with `groupadd`",
        f"{folder.path}: is the app folder of 'shop', not of '{application()}'; use another folder",
        f"{folder.path}/.env: expected a file, found a link to '{elsewhere}/file'; move it away",
        f"{folder.path}/README.md: expected a file, found a folder; move it away",
        f"{folder.path}/data/uploads: expected a folder, found a file; move it away",
        f"{folder.path}/work: expected a folder, found a link to 'nowhere'; move it away",
        f"{folder.path}/cache: expected a folder, found a link to '{elsewhere}'; move it away",
    ]


def test_what_is_behind_a_link_is_neither_looked_at_nor_changed(folder: AppDir, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    folder.path.mkdir(parents=True)
    folder.data.symlink_to(elsewhere)
    assert problems(folder) == [f"{folder.data}: expected a folder, found a link to '{elsewhere}'; move it away"]
    link = AppDir(tmp_path / "link")
    link.path.symlink_to(elsewhere)
    assert problems(link) == [f"{link.path}: expected a folder, found a link to '{elsewhere}'; move it away"]
    assert list(elsewhere.iterdir()) == []


def test_a_link_that_appears_after_the_look_is_not_followed(
    folder: AppDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.make()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    uploads = folder.data / "uploads"
    uploads.chmod(0o777)
    changes = appdir_changes._changes

    def change_behind_its_back(*arguments: Any) -> list[appdir_changes.Change]:
        found = changes(*arguments)
        if not uploads.is_symlink():
            uploads.rename(folder.data / "old")
            uploads.symlink_to(elsewhere)
        return found

    monkeypatch.setattr(appdir_changes, "_changes", change_behind_its_back)
    with pytest.raises(AppDirError, match=f"^{uploads}: cannot be set to mode 0750 from 0777: "):
        folder.make()
    assert mode(elsewhere) == 0o700


def test_a_file_that_gets_another_name_after_the_look_is_not_changed(
    folder: AppDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.make()
    other = tmp_path / "other"
    other.write_text("")
    other.chmod(0o600)
    (folder.path / "README.md").chmod(0o666)
    changes = appdir_changes._changes

    def change_behind_its_back(*arguments: Any) -> list[appdir_changes.Change]:
        found = changes(*arguments)
        (folder.path / "README.md").unlink()
        os.link(other, folder.path / "README.md")
        return found

    monkeypatch.setattr(appdir_changes, "_changes", change_behind_its_back)
    with pytest.raises(
        AppDirError, match=r"README.md: cannot be set to mode 0640 from \d+: it is no longer a file of its"
    ):
        folder.make()
    assert mode(other) == 0o600


def test_a_file_with_another_name_elsewhere_is_refused(folder: AppDir, tmp_path: Path) -> None:
    folder.make()
    os.link(folder.env_file, tmp_path / "copy")
    assert problems(folder) == [
        f"{folder.env_file}: expected a file of its own, found one that has another name as well; copy it"
    ]


@pytest.mark.parametrize("place", ["", "data/uploads"])
def test_a_file_in_the_place_of_a_folder_is_refused(folder: AppDir, place: str) -> None:
    path = folder.path / place
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert problems(folder) == [f"{path}: expected a folder, found a file; move it away"]
    assert path.read_text() == "mine"


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    expected = [f"{tmp_path}/file: expected a folder, found a file; move it away"]
    assert problems(AppDir(tmp_path / "file" / "app")) == expected
    assert problems(AppDir(tmp_path / "file" / "some" / "app")) == expected


def test_a_folder_that_holds_other_things_is_refused(folder: AppDir) -> None:
    folder.path.mkdir(parents=True)
    for name in ("data", "lost+found", "bin", "etc", "home", "var"):
        (folder.path / name).mkdir()
    expected = f"{folder.path}: holds what is not ours, 'bin', 'etc', 'home' and 1 more; use an empty folder"
    assert problems(folder) == [expected]
    for name in ("bin", "etc", "home", "var"):
        (folder.path / name).rmdir()
    folder.make()
    (folder.path / "bin").mkdir()
    assert folder.make() == []


def test_the_machine_s_own_folders_are_refused() -> None:
    for path in ("/", "/etc", "/usr"):
        with pytest.raises(AppDirError, match=f"^{path}: holds what is not ours, "):
            AppDir(Path(path)).make(dry_run=True)


def test_a_folder_of_a_newer_version_is_refused(folder: AppDir) -> None:
    folder.make()
    folder.marker.write_text(json.dumps({"application": application(), "format": 2}))
    assert problems(folder) == [
        f"{folder.path}: was made by a newer version (format 2, this one knows 1); use that version, or another folder"
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"application": "x"}', '{"application": 1, "format": []}', "\xff"]
)
def test_a_broken_marker_is_one_line(folder: AppDir, text: str) -> None:
    folder.make()
    folder.marker.write_bytes(text.encode("latin-1"))
    expected = json.dumps({"application": application(), "format": 1})
    assert problems(folder) == [
        f"{folder.marker}: is broken, expected {expected}; write that, or use another folder",
    ]


def test_a_broken_env_file_is_refused_with_its_lines(folder: AppDir) -> None:
    folder.make()
    folder.env_file.write_text("PORT\nA=1\nA=2\n")
    assert problems(folder) == [
        f"{folder.env_file}:1: this line: found no `=`; expected NAME=value",
        f"{folder.env_file}:3: A: found a second time, first in line 2; keep one of them",
    ]


def test_settings_that_others_may_write_are_found(folder: AppDir) -> None:
    folder.make()
    overlay = folder.config / "some" / "logging.json"
    overlay.parent.mkdir()
    overlay.touch()
    overlay.chmod(0o666)
    before = state(folder)
    assert folder.check() == [(overlay, "others may write it", f"chmod o-w {overlay}")]
    assert state(folder) == before


def test_a_missing_folder_is_one_finding(folder: AppDir) -> None:
    assert folder.check(mend="this") == [(folder.path, "is missing", "this")]


@needs_root
def test_the_service_gets_what_it_writes_and_reads_the_rest(folder: AppDir) -> None:
    folder.make(USER, GROUP)
    uid, gid = pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid
    for name in (*FOLDERS, *FILES, ""):
        status = (folder.path / name).stat()
        part = PARTS.get(name.partition("/")[0])
        assert (status.st_uid, status.st_gid) == (uid if part and part.written else 0, gid), name
    assert mode(folder.env_file) == 0o640
    # It was said once; afterwards, that is how it is.
    assert folder.check() == []
    assert folder.make() == []
    (folder.data / "exports").rmdir()
    os.chown(folder.data / "uploads", 0, 0)
    folder.env_file.unlink()
    assert len(folder.check()) == 3
    folder.make()
    assert folder.check(USER, GROUP) == []


@needs_root
def test_owners_are_mended_and_files_in_folders_are_left_alone(folder: AppDir) -> None:
    folder.make()
    folder.database.touch()
    own_group = grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name
    found = {path: what for path, what, _ in folder.check(USER)}
    assert found[folder.data] == f"owner root:root, expected {USER}:{own_group}"
    assert found[folder.config] == f"owner root:root, expected root:{own_group}"
    folder.make(USER, GROUP)
    assert folder.check(USER, GROUP) == []
    assert folder.database.stat().st_uid == 0


@needs_root
def test_a_setgid_parent_gives_its_group(tmp_path: Path) -> None:
    gid = grp.getgrnam(GROUP).gr_gid
    os.chown(tmp_path, 0, gid)
    tmp_path.chmod(0o2755)
    folder = AppDir(tmp_path / "app")
    folder.make()
    assert {path.stat().st_gid for path in (folder.path, *folder.path.rglob("*"))} == {gid}
    assert folder.check() == []
