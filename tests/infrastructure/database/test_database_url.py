"""Which URLs `connect` takes, and that taking one opens nothing."""

import sys
from pathlib import Path

import pytest

from database import connect


def test_a_url_of_no_supported_database_is_refused() -> None:
    expected = {
        "": "expected a URL like postgresql://user:password@host/name",
        "data/app.sqlite3": "expected a URL like postgresql://user:password@host/name",
        "postgresql://host:port/name": "expected a URL like postgresql://user:password@host/name",
        "mysql+pymysql://host/name": "mysql is not supported, expected postgresql",
        "postgres://host/name": "postgres is not supported, expected postgresql",
    }
    for url, reason in expected.items():
        with pytest.raises(ValueError, match=f"^{reason}$"):
            connect(url)


def test_sqlite_is_not_opened_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite3"
    engine = connect(f"sqlite:///{path}")
    assert not path.exists()
    engine.connect().close()
    engine.dispose()
    assert path.exists()


def test_postgresql_without_its_driver_names_the_commands_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"^psycopg is not installed; run `make add PACKAGE="):
        connect("postgresql://user:password@host/name")


def test_postgresql_goes_through_psycopg_and_is_not_connected_to_yet() -> None:
    engine = connect("postgresql://user:password@host/name", threads=3)
    assert engine.url.render_as_string(hide_password=False) == "postgresql+psycopg://user:password@host/name"
    assert engine.pool.status().startswith("Pool size: 3  Connections in pool: 0 Current Overflow: -3")
