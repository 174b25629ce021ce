"""Which storage a URL means, and what is said of one that means none."""

import sys
from datetime import timedelta

import pytest

from storage import Storage, StorageError


@pytest.mark.parametrize(
    "url", ["", "/tmp", "file:relative", "file://host/path", "s4://bucket", "s3:///prefix", "sftp://"]
)
def test_a_url_without_a_backend_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme, expected file:///path, memory://, s3://bucket/prefix, .*"):
        Storage(url)


@pytest.mark.parametrize("url", ["memory://?mode=1", "file:///tmp?mode=1"])
def test_an_unknown_option_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^unknown option mode; expected "):
        Storage(url)


@pytest.mark.parametrize(("extra", "url", "library"), [("s3", "s3://b", "obstore"), ("sftp", "sftp://h/p", "paramiko")])
def test_a_library_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, extra: str, url: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for module in ("storage.object_store", "storage.sftp"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(
        ValueError, match=rf"^it needs {library}, of the extra {extra}; run: make add PACKAGE={library} && "
    ):
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


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sftp://me:p#ss@host/srv", "a `#` in a name or a password has to be written %23"),
        pytest.param("sftp://host:99999/srv", "Port out of range", marks=pytest.mark.slow),
        pytest.param("sftp://host:ssh/srv", "Port could not be cast", marks=pytest.mark.slow),
        ("file:///srv?file_mode", "the options behind `\\?` are no list of name=value"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        Storage(url)
