"""The shipped revisions, up and down, on real SQLite files."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from flask import Flask
from sqlalchemy import Engine, inspect

from config import ROOT
from database import Base, connect
from database.migrations import alembic_config, applied, missing, pending, scripts
from tests.infrastructure.database.conftest import FIRST, HEADS, downgrade, upgrade

KINDS = ("columns", "foreign_keys", "unique_constraints", "check_constraints", "indexes")


@pytest.fixture
def engine(empty: Engine) -> Engine:
    """A migrated database."""
    upgrade(empty)
    return empty


def schema(engine: Engine) -> dict[str, list[list[str]]]:
    """What there is to know of each table, but for Alembic's own."""
    found = inspect(engine)
    names = set(found.get_table_names()) - {"alembic_version"}
    return {
        name: [sorted(str(part) for part in getattr(found, f"get_{kind}")(name)) for kind in KINDS] for name in names
    }


def test_up_down_and_up_again_gives_the_same_tables(engine: Engine) -> None:
    before = schema(engine)
    assert before
    downgrade(engine, "base")
    assert schema(engine) == {}
    upgrade(engine)
    assert schema(engine) == before


def test_each_branch_can_be_undone_and_done_again(engine: Engine) -> None:
    before = schema(engine)
    for branch in {Path(script.path).parent.name for script in scripts().walk_revisions()}:
        downgrade(engine, f"{branch}@base")
        assert len(schema(engine)) < len(before)
        upgrade(engine)
        assert schema(engine) == before


def test_models_and_migrations_say_the_same(app: Flask, engine: Engine) -> None:
    command.check(alembic_config(engine))
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_models_and_migrations_make_the_same_tables(app: Flask, engine: Engine) -> None:
    by_migrations = schema(engine)
    downgrade(engine, "base")
    Base.metadata.create_all(engine)
    assert schema(engine) == by_migrations


def test_a_database_has_pending_migrations_until_it_is_at_the_newest(empty: Engine) -> None:
    assert pending(empty)
    upgrade(empty, FIRST)
    assert pending(empty)
    upgrade(empty)
    assert not pending(empty)
    assert applied(empty) == HEADS


def test_a_column_that_is_not_there_is_missed_whatever_the_database_says_it_is_at(engine: Engine) -> None:
    assert missing(engine) == []
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE schedule_slot DROP COLUMN outcome")
        connection.exec_driver_sql("DROP TABLE rate_limit")
    found = missing(engine)
    assert "schedule_slot.outcome" in found
    assert {name.partition(".")[0] for name in found} == {"schedule_slot", "rate_limit"}


def test_sessions_after_a_migration_are_as_before(empty: Engine, url: str) -> None:
    ask = "PRAGMA foreign_keys" if url.startswith("sqlite") else "SHOW statement_timeout"
    with empty.connect() as connection:
        before = connection.exec_driver_sql(ask).scalar()
    upgrade(empty)
    with empty.connect() as connection:
        assert connection.exec_driver_sql(ask).scalar() == before


def test_a_migration_can_be_printed_as_sql(app: Flask, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(alembic_config(engine), "heads", sql=True)
    output = capsys.readouterr().out
    assert all(f"CREATE TABLE {table} (" in output for table in Base.metadata.tables)


@pytest.mark.slow
def test_plain_alembic_works_from_the_root(tmp_path: Path) -> None:
    environ = {"APP_ENV": "testing", "APP_DIR": str(tmp_path), "PATH": "/usr/bin"}
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-m", "alembic", "upgrade", "heads"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    engine = connect(f"sqlite:///{tmp_path}/data/app.sqlite3")
    assert not pending(engine)
    engine.dispose()


def test_a_database_that_newer_code_has_migrated_waits_for_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE alembic_version SET version_num = 'tomorrow' WHERE version_num = '0002_transfers'"
        )
    assert not pending(engine)
