"""`db upgrade`, `downgrade`, `current` and `check`, on the database of the configured service."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, inspect, text

from config import AppDir
from database import connect
from database.migrations import applied
from main import cli
from tests.infrastructure.conftest import needs_blog
from tests.infrastructure.database.conftest import FIRST, HEADS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    """The app folder of a service that has no database yet."""
    folder = AppDir(tmp_path / "app")
    folder.make()
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ENV": "testing", "DIR": str(folder.path), "DATABASE__TIMEOUT": "0.05"}.items():
        monkeypatch.setenv(f"APP_{name}", value)
    return folder


@pytest.fixture
def database(folder: AppDir) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{folder.database}")
    yield engine
    engine.dispose()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["db", *arguments])


def refusal(*arguments: str) -> str:
    """What a command that fails ends with, below the log lines."""
    result = run(*arguments)
    assert result.exit_code == 1
    return result.stderr.splitlines()[-1]


def test_upgrade_goes_to_the_newest_revision_or_to_the_given_one(
    database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("upgrade", FIRST).exit_code == 0
    assert applied(database) == {FIRST}
    assert run("upgrade").exit_code == 0
    assert applied(database) == HEADS


def test_downgrade_undoes_one_or_all(database: Engine) -> None:
    run("upgrade")
    assert run("downgrade", "infrastructure@-1").exit_code == 0
    assert FIRST in applied(database)
    assert run("downgrade", "base").exit_code == 0
    assert applied(database) == set()


def test_current_and_check_tell_whether_the_tables_are_there(database: Engine) -> None:
    assert refusal("check") == "Error: Target database is not up to date. Run: python main.py db upgrade"
    assert run("current").stdout == ""
    run("upgrade")
    assert run("check").exit_code == 0
    assert {line.split()[0] for line in run("current").stdout.splitlines()} >= HEADS


def test_words_are_alembics(database: Engine) -> None:
    assert "CREATE TABLE queue_message" in run("upgrade", "heads", "--sql").stdout
    assert applied(database) == set()
    assert run("stamp", FIRST).exit_code == 0
    assert applied(database) == {FIRST}
    assert run("nonsense").exit_code == 2
    for words in ((), ("--help",)):
        assert "revision -m TEXT" in run(*words).output


def test_an_unknown_revision_is_one_line(database: Engine) -> None:
    assert refusal("upgrade", "none") == "Error: Can't locate revision identified by 'none'"


def test_a_database_that_is_locked_is_one_line(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE busy (n)"))
        assert refusal("upgrade") == "Error: database: database is locked"


def test_a_file_that_is_no_database_is_one_line(folder: AppDir) -> None:
    folder.database.write_bytes(b"no database" * 100)
    assert refusal("upgrade") == "Error: database: file is not a database"


@needs_blog
def test_a_features_tables_are_dropped_after_asking_and_nobody_elses(database: Engine) -> None:
    run("upgrade")
    before = set(inspect(database).get_table_names())
    refused = CliRunner().invoke(cli, ["db", "drop", "blog"], input="n\n")
    assert refused.exit_code == 1
    assert "This deletes post (0 rows). Go on?" in refused.output
    assert refusal("drop", "accounts") == "Error: accounts: its tables are referred to by api, blog, infrastructure"
    assert refusal("drop", "shop").startswith("Error: 'shop': no folder of app/, expected one of accounts, api, blog")
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE other (post_id INTEGER REFERENCES post (id))"))
    assert refusal("drop", "blog", "--yes") == "Error: blog: its tables are referred to by infrastructure"
    with database.begin() as connection:
        connection.execute(text("DROP TABLE other"))
    assert set(inspect(database).get_table_names()) == before
    assert run("drop", "blog", "--yes").output.splitlines()[-1] == "deleted: post (0 rows)"
    assert set(inspect(database).get_table_names()) == before - {"post"}
    assert run("drop", "blog").output.splitlines()[-1] == "blog: has no tables here"
