"""Which storage a URL means, and the disks of `config/storage.yaml`."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from app import files
from config import ConfigError, load
from storage import Storage, StorageError
from storage.disks import Disks, disk_url, open_disks
from storage.local import LocalBackend


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Disks]:
    """The disks of a service with these environment variables."""

    def opened(folder: str = "app", **environment: str) -> Disks:
        return open_disks(load({"APP_ENV": "testing", "APP_DIR": str(tmp_path / folder), **environment}), files.link)

    return opened


def root(disk: Storage) -> Path:
    assert isinstance(disk.backend, LocalBackend)
    return disk.backend.root


def test_the_shipped_disks_are_folders_of_the_app_folder(opened: Callable[..., Disks], tmp_path: Path) -> None:
    folders = {"default": "data/uploads", "media": "media", "exports": "data/exports", "batches": "data/batches"}
    assert {name: root(disk) for name, disk in opened().items()} == {
        name: tmp_path / "app" / folder for name, folder in folders.items()
    }


@pytest.mark.parametrize(
    "folder", ["with space", "100%25 %", "größe", "what?", "no#1", "a;b&c=d+e", "[x]", "~", "日本"]
)
def test_an_app_folder_of_any_name_works(opened: Callable[..., Disks], tmp_path: Path, folder: str) -> None:
    disk = opened(folder)["media"]
    disk.write("a.txt", b"here")
    assert (tmp_path / folder / "media" / "a.txt").read_bytes() == b"here"


def test_the_storage_url_moves_all_disks_but_those_with_a_url_of_their_own(
    opened: Callable[..., Disks], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    disks = opened(STORAGE_URL=f"{tmp_path.as_uri()}/far%20away/", APP_STORAGE__DISKS__OWN=own.as_uri())
    assert [root(disks[name]) for name in ("default", "media", "own")] == [
        tmp_path / "far away" / "data" / "uploads",
        tmp_path / "far away" / "media",
        own,
    ]


def test_disks_in_memory_are_apart(opened: Callable[..., Disks]) -> None:
    disks = opened(STORAGE_URL="memory://")
    disks["media"].write("a", b"")
    assert not disks["default"].exists("a")


@pytest.mark.parametrize(
    ("base", "place", "url"),
    [
        ("file:///app", "media", "file:///app/media"),
        ("file:///app/", "./data/exports/", "file:///app/data/exports"),
        ("file:///app", "memory://", "memory://"),
        ("s3://bucket?region=eu", "media", "s3://bucket/media?region=eu"),
        ("s3://bucket/a%2Fb?secret=x%2By", "zwei 3%", "s3://bucket/a%2Fb/zwei%203%25?secret=x%2By"),
    ],
)
def test_a_disk_is_a_folder_below_the_url_with_its_options(tmp_path: Path, base: str, place: str, url: str) -> None:
    settings = load({"APP_ENV": "testing", "APP_DIR": str(tmp_path), "STORAGE_URL": base})
    assert disk_url(settings, place) == url


def test_a_disk_that_has_no_name_in_the_settings_is_an_error(opened: Callable[..., Disks]) -> None:
    with pytest.raises(StorageError, match=r"^there is no disk 'films'; storage.disks names default, .*media"):
        opened()["films"]


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"APP_STORAGE__DISKS": '{"media": "media", "more": "more"}'},
            "environment variable APP_STORAGE__DISKS: storage.disks: found 'media, more': expected one called default",
        ),
        (
            {"APP_STORAGE__DISKS__MORE": "ftp://me:hunter2@host/files"},
            "environment variable APP_STORAGE__DISKS__MORE: storage.disks.more: "
            "found 'ftp://me:***@host/files': ftp scheme, expected",
        ),
        (
            {"APP_STORAGE__DISKS__MORE": "s3://bucket?secret_access_key=hunter2&bogus=1"},
            "environment variable APP_STORAGE__DISKS__MORE: storage.disks.more: "
            "found 's3://bucket?secret_access_key=***&bogus=1': Configuration key: 'bogus'",
        ),
        (
            {"APP_STORAGE__DISKS__MORE": "/srv/more"},
            "environment variable APP_STORAGE__DISKS__MORE: storage.disks.more: "
            "found '/srv/more': '/srv/more': absolute, expected a relative path",
        ),
        (
            {"STORAGE_URL": "file:///srv?token=hunter2"},
            "config/storage.yaml: storage.url: found 'file:///srv?token=***': "
            "found options after `?`, which only object stores have",
        ),
        (
            {"STORAGE_URL": "/srv/files"},
            "config/storage.yaml: storage.url: found '/srv/files': no scheme, expected file:///path",
        ),
    ],
)
def test_a_wrong_disk_is_named_with_its_source_and_without_its_password(
    opened: Callable[..., Disks], environment: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        opened(**environment)
    assert str(raised.value).startswith(line)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_check_looks_at_every_disk(opened: Callable[..., Disks], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opened().check()
    with pytest.raises(StorageError, match="file/folder: a file stands where a folder is needed"):
        opened(APP_STORAGE__DISKS__MORE=f"{tmp_path.as_uri()}/file/folder").check()


def test_opening_disks_makes_and_asks_nothing(opened: Callable[..., Disks], tmp_path: Path) -> None:
    opened()
    opened(STORAGE_URL="s3://bucket?endpoint=http://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["", "/tmp", "file:relative", "file://host/path", "s4://bucket", "s3:///prefix", "sftp://host/path"]
)
def test_a_url_without_a_backend_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme, expected file:///path, memory://, s3://bucket/prefix, .*"):
        Storage(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://?mode=1", r"found options after `\?`, which only object stores have"),
        ("file:///srv?file_mode", r"found options after `\?`, which only object stores have"),
        ("s3://bucket/p#ss", "a `#` in a name or a password has to be written %23"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        Storage(url)


def test_links_are_made_by_the_service_where_the_backend_makes_none() -> None:
    expires = timedelta(minutes=1)
    with pytest.raises(StorageError, match=r"^a: this storage makes no links$"):
        Storage("memory://").url("a", expires=expires)
    storage = Storage("memory://", link=lambda path, expires: f"/files/{path}?for={expires.seconds}")
    assert storage.url("./a/b", expires=expires) == "/files/a/b?for=60"


@pytest.mark.parametrize("days", [-1, 0, 7.01])
def test_a_link_works_for_some_time_and_no_longer_than_any_backend_allows(days: float) -> None:
    storage = Storage("memory://", link=lambda path, expires: path)
    with pytest.raises(ValueError, match=r"expected more than nothing and at most 7 days, 0:00:00$"):
        storage.url("a", expires=timedelta(days=days))
