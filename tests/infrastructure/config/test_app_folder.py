"""Making, mending and checking the app folder."""

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config import PARTS, AppDir, ConfigError, load
from main import cli

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give things to others")
# These two are on every Unix, and are never this process's own.
USER, GROUP = "nobody", "daemon"


@pytest.fixture
def folder(tmp_path: Path) -> AppDir:
    return AppDir(tmp_path / "new" / "app")


def run(folder: AppDir, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["appdir", *arguments], env={"APP_DIR": str(folder.path), "APP_ENV": "testing"})


def state(folder: AppDir) -> dict[Path, tuple[int, int, int, int]]:
    """What `make` could change of everything in it."""
    found = [(path, path.lstat()) for path in (folder.path, *folder.path.rglob("*"))]
    return {path: (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns) for path, status in found}


def test_all_is_made_for_the_service_alone_and_nothing_is_to_be_mended(folder: AppDir) -> None:
    before = os.umask(0)
    try:
        folder.make()
    finally:
        os.umask(before)
    assert {path.name for path in folder.path.iterdir()} == {".env", *PARTS}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir() if path.is_dir()} == {0o750}
    assert stat.S_IMODE(folder.env_file.stat().st_mode) == 0o600
    assert folder.check() == []
    assert len(load({"APP_DIR": str(folder.path)}).app.secret_key) == 43


def test_a_second_time_changes_nothing(folder: AppDir) -> None:
    folder.make()
    (folder.config / "queue.yaml").write_text("threads: 2")
    before = state(folder)
    folder.make()
    assert state(folder) == before


def test_what_is_missing_or_open_is_said_and_mended(folder: AppDir) -> None:
    folder.make()
    (folder.path / "logs").rmdir()
    folder.config.chmod(0o777)
    folder.env_file.chmod(0o604)
    found = folder.check()
    places = [folder.path / "logs", folder.config, folder.env_file]
    assert {line.split(":")[0] for line in found} == {str(place) for place in places}
    assert "run `python main.py appdir make`" in found[0]
    folder.make()
    assert folder.check() == []


def test_a_folder_that_is_not_there_is_one_line_a_part(folder: AppDir) -> None:
    assert len(folder.check()) == len(PARTS) + 2


@pytest.mark.parametrize("part", [*PARTS, ".env"])
def test_a_link_in_a_place_of_ours_is_refused_and_what_it_leads_to_stays(
    folder: AppDir, tmp_path: Path, part: str
) -> None:
    folder.make()
    place, target = folder.path / part, tmp_path / "elsewhere"
    place.unlink() if part == ".env" else place.rmdir()
    target.touch() if part == ".env" else target.mkdir()
    target.chmod(0o777)
    place.symlink_to(target)
    with pytest.raises(ConfigError, match=f"^{place}: cannot be made or mended: "):
        folder.make()
    assert stat.S_IMODE(target.stat().st_mode) == 0o777
    assert any(line.startswith(str(place)) for line in folder.check())


def test_a_file_in_the_place_of_a_folder_is_named(folder: AppDir) -> None:
    folder.path.mkdir(parents=True)
    folder.data.touch()
    with pytest.raises(ConfigError, match=f"^{folder.data}: cannot be made or mended: "):
        folder.make()


@needs_root
def test_the_service_owns_what_it_writes_and_may_read_the_rest(folder: AppDir) -> None:
    folder.make(USER, GROUP)
    uid, gid = pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid
    for name, part in PARTS.items():
        status = (folder.path / name).stat()
        assert (status.st_uid, status.st_gid) == (uid if part.written else 0, gid), name
    status = folder.env_file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, gid, 0o640)
    # Made once more without them, it stays readable for the service.
    folder.make()
    assert folder.env_file.stat()[:6] == status[:6]


def test_an_unknown_user_or_group_is_named(folder: AppDir) -> None:
    for arguments in (["--user", "nobody-of-that-name"], ["--group", "nobody-of-that-name"]):
        result = run(folder, "make", *arguments)
        assert result.exit_code == 2
        assert "nobody-of-that-name" in result.stderr
    assert not folder.path.exists()


def test_the_commands_say_what_they_did_and_whether_all_is_well(folder: AppDir) -> None:
    result = run(folder, "check")
    assert result.exit_code == 1
    made = run(folder, "make")
    assert made.exit_code == 0
    assert run(folder, "check").output == f"ok: {folder.path}\n"
    assert run(folder, "make").output == f"ok: {folder.path}\n"
