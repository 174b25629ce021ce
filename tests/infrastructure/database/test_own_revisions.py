"""Revisions that are still to be written, in a copy of `database/versions/`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from click.testing import CliRunner, Result
from sqlalchemy import Engine, inspect, text

from config import ROOT, AppDir
from database import connect, migrations
from database.commands import db
from database.migrations import alembic_config, applied, downgrade, revisions, upgrade

SHIPPED = revisions()[-1]


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of revisions of a copy of the project."""
    project = tmp_path / "project"
    shutil.copytree(
        ROOT / "database", project / "database", ignore=shutil.ignore_patterns("__pycache__", "__init__.py")
    )
    for file in ("pyproject.toml", "ruff.toml"):
        shutil.copy(ROOT / file, project)
    monkeypatch.setattr(migrations, "PROJECT", project / "pyproject.toml")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return project / "database/versions"


def write(versions: Path, name: str, follows: str, *steps: str) -> None:
    body = "".join(f"    {step}\n" for step in steps)
    (versions / f"{name}.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '{name}'\ndown_revision = '{follows}'\n"
        f"def upgrade():\n{body}def downgrade():\n    pass\n"
    )


def test_a_revision_that_fails_leaves_nothing_half_done(engine: Engine, versions: Path) -> None:
    write(versions, "good", SHIPPED, "op.execute('CREATE TABLE one (n)')")
    write(versions, "bad", "good", "op.execute('CREATE TABLE two (n)')", "op.execute('INSERT INTO none VALUES (1)')")
    with pytest.raises(Exception, match="no such table: none"):
        upgrade(engine)
    assert applied(engine) == {"good"}
    tables = inspect(engine).get_table_names()
    assert "one" in tables
    assert "two" not in tables


def test_changing_a_table_keeps_the_rows_that_refer_to_it(engine: Engine, versions: Path) -> None:
    write(
        versions,
        "tables",
        SHIPPED,
        "op.execute('CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT)')",
        "op.execute('CREATE TABLE child (id INTEGER REFERENCES parent (id) ON DELETE CASCADE)')",
        "op.execute(\"INSERT INTO parent VALUES (1, 'x')\")",
        "op.execute('INSERT INTO child VALUES (1)')",
    )
    write(
        versions,
        "change",
        "tables",
        "with op.batch_alter_table('parent') as batch:",
        "    batch.alter_column('name', existing_type=sa.Text(), nullable=False)",
    )
    upgrade(engine)
    assert not inspect(engine).get_columns("parent")[1]["nullable"]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM child JOIN parent USING (id)")) == 1


@pytest.fixture
def database(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The migrated database of the configured service."""
    folder = AppDir(tmp_path / "app")
    folder.make()
    shutil.copyfile(migrated_database, folder.database)
    monkeypatch.setenv("APP_ENV", "testing")
    monkeypatch.setenv("APP_DIR", str(folder.path))
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    engine = connect(f"sqlite:///{folder.database}", timeout=0.05)
    yield engine
    engine.dispose()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(db, arguments)


def test_the_command_writes_what_the_models_say_and_the_tables_lack(database: Engine, versions: Path) -> None:
    shipped = set(versions.iterdir())
    with database.begin() as connection:
        connection.execute(text("DROP TABLE schedule_slot"))
    assert run("check").exit_code == 1
    result = run("revision", "-m", "bring back the ledger")
    assert result.exit_code == 0, result.output
    (written,) = set(versions.iterdir()) - shipped - {versions / "__pycache__"}
    assert written.name.count("_bring_back_the_ledger_")
    assert 'sa.Column("slot", sa.DateTime(timezone=True), nullable=False)' in written.read_text()
    assert run("upgrade").exit_code == 0
    assert run("check").exit_code == 0


def test_the_command_writes_an_empty_revision_to_be_filled_by_hand(database: Engine, versions: Path) -> None:
    shipped = set(versions.iterdir())
    assert run("revision", "--empty", "-m", "by hand").exit_code == 0
    (written,) = set(versions.iterdir()) - shipped - {versions / "__pycache__"}
    assert written.read_text().count("    pass\n") == 2
    upgrade(database)
    assert applied(database) != {SHIPPED}
    downgrade(database, "-1")
    assert applied(database) == {SHIPPED}


def test_two_revisions_after_the_same_one_are_refused(database: Engine, versions: Path) -> None:
    write(versions, "one", SHIPPED, "pass")
    write(versions, "two", SHIPPED, "pass")
    result = run("upgrade")
    assert result.exit_code == 1
    assert "Error: Multiple head revisions are present" in result.stderr
    command.upgrade(alembic_config(database), "heads")
    assert applied(database) == {"one", "two"}
