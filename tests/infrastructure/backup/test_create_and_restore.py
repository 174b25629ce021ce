"""Backups of an installation at rest, and what is made of them."""

import grp
import json
import os
import pwd
import re
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from backup import BackupError, BackupRunning, Refused
from backup.archive import CHUNK
from backup.create import backups_in, create
from backup.lock import no_removals
from backup.restore import restore, verify
from config import AppDir, Settings
from tests.infrastructure.backup.conftest import FILES, LEFT_OUT


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and content of everything in a folder; no content for folders."""
    return {
        str(place.relative_to(folder)): (place.stat().st_mode, None if place.is_dir() else place.read_bytes())
        for place in folder.rglob("*")
    }


def keys(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT key FROM rate_limit")]


def names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_what_is_restored_is_what_was_backed_up(settings: Settings, tmp_path: Path) -> None:
    before = tree(settings.app_dir.path)
    done = create(settings)
    restored = restore(done.path, tmp_path / "restored", settings)
    after = tree(restored.folder)
    assert {path: after[path] for path in (*FILES, "media/pictures", ".env", "data", "media")} == {
        path: before[path] for path in (*FILES, "media/pictures", ".env", "data", "media")
    }
    assert not set(LEFT_OUT) & set(after)
    assert keys(restored.folder / "data/app.sqlite3") == ["kept"]
    assert AppDir(restored.folder).make() == []
    assert not restored.is_behind
    assert [place.name for place in tmp_path.iterdir() if ".partial" in place.name] == []


def test_times_of_files_come_back(settings: Settings, tmp_path: Path) -> None:
    place = settings.app_dir.path / "media/pictures/one.webp"
    os.utime(place, (1_700_000_000, 1_700_000_000))
    restored = restore(create(settings).path, tmp_path / "restored", settings)
    assert (restored.folder / "media/pictures/one.webp").stat().st_mtime == 1_700_000_000


def test_a_backup_is_a_tar_whose_manifest_says_what_is_in_it(settings: Settings) -> None:
    done = create(settings)
    assert re.fullmatch(rf"{settings.app.slug}-\d{{8}}T\d{{6}}Z\.tar\.gz", done.path.name)
    assert done.path.parent == settings.app_dir.backups
    assert done.path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(done.path) as tar:
        found = tar.getnames()
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert [entry["path"] for entry in manifest["files"]] == found[:-1]
    assert (manifest["format"], manifest["slug"], manifest["database"]["kind"]) == (1, settings.app.slug, "sqlite")
    assert manifest["database"]["revisions"]
    picture = next(entry for entry in manifest["files"] if entry["path"] == "media/pictures/one.webp")
    assert (picture["mode"], picture["size"]) == ("0604", 3)
    assert picture["sha256"] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert done.files == len([entry for entry in manifest["files"] if "sha256" in entry]) == len(FILES) + 3


def test_a_backup_holds_nothing_that_may_vanish_and_no_half_written_file(settings: Settings) -> None:
    found = names(create(settings).path)
    assert not set(LEFT_OUT) & set(found)
    assert not [name for name in found if name.endswith(("-wal", "-shm", "-journal")) or ".partial" in name]


def test_the_copy_of_a_database_with_a_writer_is_sound_and_has_all_that_was_committed(
    settings: Settings, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(settings.app_dir.database, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO rate_limit VALUES ('committed', 1, 0)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO rate_limit VALUES ('pending', 1, 0)")
        done = create(settings)
        writer.execute("COMMIT")
    restored = restore(done.path, tmp_path / "restored", settings)
    assert keys(restored.folder / "data/app.sqlite3") == ["kept", "committed"]
    assert list(settings.app_dir.work.glob("backup-*")) == []


def test_a_database_elsewhere_is_in_the_backup_where_a_restored_service_looks_for_it(
    settings: Settings, tmp_path: Path
) -> None:
    elsewhere = settings.app_dir.database.rename(tmp_path / "elsewhere.sqlite3")
    settings.app_dir.database.write_bytes(b"of an older time")
    moved = msgspec.structs.replace(settings.database, url=f"sqlite:///{elsewhere}")
    done = create(msgspec.structs.replace(settings, database=moved))
    assert done.not_included == ["data/app.sqlite3: a database that the service does not use"]
    restored = restore(done.path, tmp_path / "restored", settings)
    assert keys(restored.folder / "data/app.sqlite3") == ["kept"]


def test_disks_that_lie_elsewhere_are_named_without_their_secrets(settings: Settings, tmp_path: Path) -> None:
    disks = {**settings.storage.disks, "media": "s3://bucket/media?secret_access_key=abc", "exports": "cache/exports"}
    done = create(msgspec.structs.replace(settings, storage=msgspec.structs.replace(settings.storage, disks=disks)))
    cache = settings.app_dir.path / "cache/exports"
    assert done.not_included == [
        "disk media: its files are at s3://bucket/media?secret_access_key=***",
        f"disk exports: its files are at file://{cache}",
    ]
    assert verify(done.path, settings).manifest.not_included == done.not_included


@pytest.mark.parametrize("kind", ["link", "folder link", "fifo", "link for media", "name"])
def test_what_no_backup_can_hold_is_named_before_anything_is_written(settings: Settings, kind: str) -> None:
    media = settings.app_dir.path / "media"
    if kind == "link":
        (media / "odd").symlink_to("pictures/one.webp")
    elif kind == "folder link":
        (media / "odd").symlink_to("pictures")
    elif kind == "fifo":
        os.mkfifo(media / "odd")
    elif kind == "name":
        (media / "odd\n").touch()
    else:
        media.rename(media.with_name("odd"))
        media.symlink_to("odd")
    with pytest.raises(BackupError, match=r"media.*(a link, which|neither file nor folder|a name that is)") as raised:
        create(settings)
    assert len(str(raised.value).splitlines()) == 1
    assert [place.name for place in settings.app_dir.backups.iterdir()] == ["old.tar.gz"]


def test_a_missing_or_damaged_database_is_named(settings: Settings) -> None:
    database = settings.app_dir.database
    content = bytearray(database.read_bytes())
    content[4096 * 3 : 4096 * 5] = os.urandom(8192)
    database.write_bytes(content)
    with pytest.raises(BackupError, match=r"the database .* (damaged|malformed)"):
        create(settings)
    database.unlink()
    with pytest.raises(BackupError, match=r"there is no database; run `python main\.py db upgrade`"):
        create(settings)
    assert [place.name for place in settings.app_dir.backups.iterdir()] == ["old.tar.gz"]


def test_a_second_backup_at_once_gives_up(settings: Settings) -> None:
    with no_removals(settings.app_dir), pytest.raises(BackupRunning, match="another backup"):
        create(settings)
    create(settings)


def test_a_place_in_what_is_backed_up_is_refused(settings: Settings) -> None:
    with pytest.raises(Refused, match="lies in what is backed up"):
        create(settings, settings.app_dir.path / "media")
    with pytest.raises(Refused, match="no such folder"):
        create(settings, settings.app_dir.path / "nowhere")


def test_only_so_many_backups_of_this_application_stay(settings: Settings, tmp_path: Path) -> None:
    place = tmp_path / "backups"
    place.mkdir()
    slug = settings.app.slug
    own = [f"{slug}-2024010{day}" for day in ("1T000000Z.tar.gz", "2T000000Z.tar", "3T000000Z.tar.gz")]
    others = [
        f"{slug}-20240101T000000Z.tar.gz.asc",
        f"{slug}-copy.tar.gz",
        f"{slug}_2-20240101T000000Z.tar.gz",
        "manifest.json",
    ]
    for name in (*own, *others):
        (place / name).touch()
    (place / f"{slug}-20230101T000000Z.tar.gz").symlink_to(place / own[0])
    done = create(settings, place, keep=2)
    assert [path.name for path in done.pruned] == own[:2]
    assert {path.name for path in backups_in(place, slug)} == {own[2], done.path.name}
    assert {path.name for path in place.iterdir()} > set(others)
    assert create(settings, place, keep=1).pruned == [place / own[2], done.path]


def test_a_backup_of_a_wrong_date_pushes_out_no_good_one(settings: Settings) -> None:
    wrong = [settings.app_dir.backups / f"{settings.app.slug}-2099010{day}T000000Z.tar.gz" for day in range(1, 4)]
    for path in wrong:
        path.touch()
    done = [create(settings, keep=3) for _ in range(4)]
    assert [path for one in done for path in one.pruned] == [*wrong, done[0].path]


def test_what_a_killed_run_has_left_is_removed_by_the_next_one(settings: Settings) -> None:
    left = settings.app_dir.backups / f"{settings.app.slug}-20260101T000000Z.tar.gz.partial"
    left.touch()
    other = settings.app_dir.backups / "other-20260101T000000Z.tar.gz.partial"
    other.touch()
    copy = settings.app_dir.work / "backup-abcdefgh/copy"
    copy.parent.mkdir()
    copy.touch()
    create(settings)
    assert not left.exists()
    assert not copy.parent.exists()
    assert other.exists()


def test_a_restore_removes_what_a_killed_one_has_left(settings: Settings, tmp_path: Path) -> None:
    left = tmp_path / ".restored-abcdefgh.partial"
    left.mkdir()
    restore(create(settings).path, tmp_path / "restored", settings)
    assert not left.exists()


@pytest.mark.parametrize("what", ["a file", "a link", "a folder with a file", "no parent"])
def test_a_folder_in_use_is_refused(settings: Settings, tmp_path: Path, what: str) -> None:
    done = create(settings)
    target = tmp_path / "target"
    if what == "a file":
        target.write_text("kept")
    elif what == "a link":
        target.symlink_to(tmp_path)
    elif what == "no parent":
        target = target / "below"
    else:
        target.mkdir()
        (target / "kept").touch()
    before = tree(tmp_path)
    with pytest.raises(Refused, match=r"expected an empty folder|not empty|no such folder"):
        restore(done.path, target, settings)
    assert tree(tmp_path) == before


def test_an_empty_folder_is_filled(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    restore(create(settings).path, tmp_path / "empty", settings)
    assert (tmp_path / "empty/.env").exists()


def test_too_little_room_is_noticed_before_anything_is_written(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = create(settings)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    before = tree(tmp_path)
    with pytest.raises(Refused, match="more than the 1000000 bytes that are free"):
        restore(done.path, tmp_path / "restored", settings)
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_restores_owners_that_are_known_here(settings: Settings, tmp_path: Path) -> None:
    nobody, nogroup = pwd.getpwnam("nobody"), grp.getgrnam("nogroup")
    os.chown(settings.app_dir.data, nobody.pw_uid, nogroup.gr_gid)
    os.chown(settings.app_dir.database, nobody.pw_uid, nogroup.gr_gid)
    os.chown(settings.app_dir.path / "media/pictures/one.webp", nobody.pw_uid, nogroup.gr_gid)
    os.chown(settings.app_dir.path / "media/pictures", 54321, 54321)
    done = restore(create(settings).path, tmp_path / "restored", settings)
    restored, told = done.folder, done.backup.manifest
    assert (told.owner, told.group) == ("nobody", "nogroup")
    assert restored.stat().st_uid == 0
    for path in ("data", "data/app.sqlite3", "media/pictures/one.webp"):
        state = (restored / path).stat()
        assert (path, state.st_uid, state.st_gid) == (path, nobody.pw_uid, nogroup.gr_gid)
    assert (restored / "media/pictures").stat().st_uid == 0


def test_a_file_that_vanishes_is_told(settings: Settings) -> None:
    (settings.app_dir.path / "media/pictures/a.webp").write_bytes(bytes(12345))

    def remove(count: int) -> None:
        if count == 12345:
            (settings.app_dir.path / "media/pictures/one.webp").unlink(missing_ok=True)

    assert create(settings, seen=remove).vanished == ["media/pictures/one.webp"]


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error(settings: Settings) -> None:
    large = settings.app_dir.path / "media/a"
    large.write_bytes(bytes(5_000_000))

    def shorten(count: int) -> None:
        if count == CHUNK:
            large.write_bytes(b"")

    with pytest.raises(BackupError, match="'media/a': became shorter while it was read"):
        create(settings, seen=shorten)
    assert [place.name for place in settings.app_dir.backups.iterdir()] == ["old.tar.gz"]
