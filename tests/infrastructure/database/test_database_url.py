"""Which URLs `connect` takes, and that taking one opens nothing."""

import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from database import connect, sessions


def test_a_url_of_no_supported_database_is_refused() -> None:
    expected = {
        "": "expected a URL like postgresql://user:password@host/name",
        "data/app.sqlite3": "expected a URL like postgresql://user:password@host/name",
        "postgresql://host:port/name": "expected a URL like postgresql://user:password@host/name",
        "sqlite://data/app.sqlite3": "expected sqlite:///path, with three slashes",
        "mysql+pymysql://host/name": "mysql is not supported, expected sqlite or postgresql",
        "postgres://host/name": "postgres is not supported, expected sqlite or postgresql",
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


def test_sqlite_works_in_memory() -> None:
    engine = connect("sqlite://")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


def test_postgresql_without_its_driver_names_the_commands_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"^psycopg is not installed; run `make lock EXTRAS=postgres && make setup`$"):
        connect("postgresql://user:password@host/name")


@pytest.fixture
def psycopg(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A driver that only counts how often it is asked for a connection."""
    driver = Mock(__version__="3.3.0", paramstyle="pyformat")
    monkeypatch.setitem(sys.modules, "psycopg", driver)
    monkeypatch.setitem(sys.modules, "psycopg.adapt", driver.adapt)
    return driver


def test_postgresql_goes_through_psycopg_and_is_not_connected_to_yet(psycopg: Mock) -> None:
    engine = connect("postgresql://user:password@host/name", pool_size=3)
    assert engine.url.render_as_string(hide_password=False) == "postgresql+psycopg://user:password@host/name"
    assert engine.pool.status().startswith("Pool size: 3 ")
    psycopg.connect.assert_not_called()


def test_read_only_sessions_on_postgresql_ask_for_read_only_transactions(psycopg: Mock) -> None:
    engine = connect("postgresql://host/name")
    with sessions(engine, read_only=True)() as session:
        assert session.get_bind().get_execution_options()["postgresql_readonly"] is True
    with sessions(engine)() as session:
        assert "postgresql_readonly" not in session.get_bind().get_execution_options()
