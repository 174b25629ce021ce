"""The shipped revisions, up and down, on real SQLite files."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from flask import Flask
from sqlalchemy import Engine, inspect, text

from config import ROOT
from database import Base, connect
from database.migrations import alembic_config, applied, downgrade, heads, pending, revisions, upgrade

REVISIONS = revisions()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    """A database that was never migrated."""
    engine = connect(f"sqlite:///{tmp_path}/empty.sqlite3")
    yield engine
    engine.dispose()


def schema(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        tables = text("SELECT sql FROM sqlite_master WHERE tbl_name NOT IN ('alembic_version', 'sqlite_sequence')")
        return set(connection.scalars(tables))


def test_up_down_and_up_again_gives_the_same_tables(engine: Engine) -> None:
    before = schema(engine)
    assert before
    downgrade(engine, "base")
    assert schema(engine) == set()
    upgrade(engine)
    assert schema(engine) == before


def test_each_revision_can_be_undone_and_done_again(engine: Engine) -> None:
    for revision in reversed(REVISIONS):
        assert applied(engine) == {revision}
        before = schema(engine)
        downgrade(engine, "-1")
        upgrade(engine, "+1")
        assert schema(engine) == before
        downgrade(engine, "-1")
    assert applied(engine) == frozenset()


def test_models_and_migrations_say_the_same(app: Flask, engine: Engine) -> None:
    command.check(alembic_config(engine))
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_models_and_migrations_give_constraints_the_same_names(app: Flask, engine: Engine, empty: Engine) -> None:
    Base.metadata.create_all(empty)
    by_models, by_migrations = inspect(empty), inspect(engine)
    for table in Base.metadata.tables:
        for kind in ("pk_constraint", "foreign_keys", "unique_constraints", "check_constraints", "indexes"):
            found = [getattr(inspector, f"get_{kind}")(table) for inspector in (by_models, by_migrations)]
            assert found[0] == found[1]


def test_a_database_has_pending_migrations_until_it_is_at_the_newest(empty: Engine) -> None:
    assert pending(empty)
    upgrade(empty, REVISIONS[-2])
    assert pending(empty)
    upgrade(empty)
    assert not pending(empty)
    assert applied(empty) == heads() == {REVISIONS[-1]}


def test_sessions_after_a_migration_check_references_again(empty: Engine) -> None:
    upgrade(empty)
    with empty.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_migration_can_be_printed_as_sql(app: Flask, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(alembic_config(engine), "head", sql=True)
    output = capsys.readouterr().out
    assert all(f"CREATE TABLE {table} (" in output for table in Base.metadata.tables)


@pytest.mark.slow
def test_plain_alembic_works_from_the_root(tmp_path: Path) -> None:
    environ = {"APP_ENV": "testing", "APP_DIR": str(tmp_path), "PATH": "/usr/bin"}
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    engine = connect(f"sqlite:///{tmp_path}/data/app.sqlite3")
    assert not pending(engine)
    engine.dispose()


def test_a_database_that_newer_code_has_migrated_waits_for_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'tomorrow'")
    assert not pending(engine)
