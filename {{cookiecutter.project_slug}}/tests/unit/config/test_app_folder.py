"""Making the app folder."""

import os
import stat
from pathlib import Path

import pytest

from config import AppDir, AppDirError


@pytest.fixture
def folder(tmp_path: Path) -> AppDir:
    return AppDir(tmp_path / "new" / "app")


def contents(folder: AppDir) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder.path)): path.read_bytes() if path.is_file() else None
        for path in folder.path.rglob("*")
    }


def test_everything_the_service_needs_is_made_and_named(folder: AppDir) -> None:
    made = folder.make()
    places = contents(folder)
    assert {"config", "data/uploads", "static", "media", "logs", "sessions/lock", "work", "cache", ".env"} <= set(
        places
    )
    assert folder.config.is_dir()
    assert folder.database.parent == folder.data
    assert folder.data.is_dir()
    assert len(made) == len(places) + 1


def test_a_second_time_makes_and_changes_nothing(folder: AppDir) -> None:
    folder.make()
    before = contents(folder)
    assert folder.make() == []
    assert contents(folder) == before


def test_what_is_there_stays_as_it_is(folder: AppDir) -> None:
    folder.data.mkdir(parents=True)
    folder.data.chmod(0o700)
    folder.database.write_bytes(b"tables")
    folder.env_file.write_text("SECRET_KEY=mine")
    folder.make()
    assert stat.S_IMODE(folder.data.stat().st_mode) == 0o700
    assert folder.database.read_bytes() == b"tables"
    assert folder.env_file.read_text() == "SECRET_KEY=mine"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_owner_and_group_may_look_in_whatever_the_umask(folder: AppDir, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder.make()
    finally:
        os.umask(before)
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in [folder.path, *folder.path.rglob("*")]}
    assert modes == {True: 0o750, False: 0o640}


def test_each_installation_gets_a_secret_of_its_own(tmp_path: Path) -> None:
    folders = [AppDir(tmp_path / name) for name in "abc"]
    for folder in folders:
        folder.make()
    assert len({folder.env_file.read_text() for folder in folders}) == 3


@pytest.mark.parametrize("place", ["", "data/uploads"])
def test_a_file_in_the_place_of_a_folder_is_refused(folder: AppDir, place: str) -> None:
    path = folder.path / place
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(AppDirError, match=f"^{path}: expected a folder, found a file; move it away$"):
        folder.make()
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AppDirError, match=f"^{tmp_path}/file/app: cannot be made: Not a directory$"):
        AppDir(tmp_path / "file" / "app").make()
