"""Revisions that are still to be written, in a copy of `database/versions/`."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from click.testing import CliRunner, Result
from sqlalchemy import DefaultClause, Engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from config import ROOT, AppDir
from database import Base, connect, migrations
from database.commands import db
from database.migrations import alembic_config, applied
from tests.infrastructure.database.conftest import HEADS, downgrade, upgrade

SHIPPED = "0002_transfers"


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


def write(
    versions: Path, name: str, follows: str | None, *steps: str, downgrade: tuple[str, ...] = (), more: str = ""
) -> None:
    def body(steps: tuple[str, ...]) -> str:
        return "".join(f"    {step}\n" for step in steps or ("pass",))

    (versions / f"{name}.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = {name!r}\ndown_revision = {follows!r}\n{more}\n"
        f"def upgrade():\n{body(steps)}def downgrade():\n{body(downgrade)}"
    )


@pytest.fixture
def none(versions: Path) -> Path:
    """That folder without a revision."""
    for file in versions.rglob("*.py"):
        file.unlink()
    return versions


def scalar(engine: Engine, query: str) -> object:
    with engine.connect() as connection:
        return connection.scalar(text(query))


def test_a_revision_that_fails_leaves_nothing_half_done(empty: Engine, none: Path) -> None:
    write(none, "good", None, "op.execute('CREATE TABLE one (n INTEGER)')")
    write(
        none, "bad", "good", "op.execute('CREATE TABLE two (n INTEGER)')", "op.execute('INSERT INTO three VALUES (1)')"
    )
    for _ in range(2):
        with pytest.raises(DBAPIError, match="three"):
            upgrade(empty)
        assert applied(empty) == {"good"}
        assert set(inspect(empty).get_table_names()) == {"one", "alembic_version"}


def test_a_revision_can_make_an_index_beside_writers(empty: Engine, none: Path) -> None:
    write(none, "table", None, "op.execute('CREATE TABLE one (n INTEGER)')")
    write(
        none,
        "index",
        "table",
        "op.add_column('one', sa.Column('m', sa.Integer()))",
        "with op.get_context().autocommit_block():",
        "    op.create_index('ix_m', 'one', ['m'], postgresql_concurrently=True)",
        "op.execute('INSERT INTO one VALUES (1, 2)')",
    )
    upgrade(empty)
    assert applied(empty) == {"index"}
    assert inspect(empty).get_indexes("one")[0]["name"] == "ix_m"
    assert scalar(empty, "SELECT m FROM one") == 2


def test_what_fails_behind_such_an_index_is_undone_and_not_recorded(empty: Engine, none: Path) -> None:
    write(
        none,
        "index",
        None,
        "with op.get_context().autocommit_block():",
        "    op.execute('CREATE TABLE IF NOT EXISTS one (n INTEGER)')",
        "op.execute('INSERT INTO one VALUES (1)')",
        "op.execute('INSERT INTO two VALUES (1)')",
    )
    for _ in range(2):
        with pytest.raises(DBAPIError, match="two"):
            upgrade(empty)
        assert applied(empty) == set()
        assert scalar(empty, "SELECT count(*) FROM one") == 0


def test_changing_a_table_keeps_the_rows_that_refer_to_it(empty: Engine, none: Path) -> None:
    write(
        none,
        "tables",
        None,
        "op.execute('CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT)')",
        "op.execute('CREATE TABLE child (id INTEGER REFERENCES parent (id) ON DELETE CASCADE)')",
        "op.execute(\"INSERT INTO parent VALUES (1, 'x')\")",
        "op.execute('INSERT INTO child VALUES (1)')",
    )
    write(
        none,
        "change",
        "tables",
        "with op.batch_alter_table('parent') as batch:",
        "    batch.alter_column('name', existing_type=sa.Text(), nullable=False)",
    )
    upgrade(empty)
    assert not inspect(empty).get_columns("parent")[1]["nullable"]
    assert scalar(empty, "SELECT count(*) FROM child JOIN parent USING (id)") == 1
    with pytest.raises(IntegrityError), empty.connect() as connection:
        connection.execute(text("INSERT INTO child VALUES (7)"))


@pytest.mark.parametrize("rows", [0, 3])
def test_changing_a_table_keeps_it_from_giving_a_number_again(empty: Engine, none: Path, rows: int) -> None:
    columns = "sa.Column('id', sa.Integer(), primary_key=True), sa.Column('name', sa.String(5))"
    write(none, "table", None, f"op.create_table('one', {columns}, sqlite_autoincrement=True)")
    write(
        none,
        "change",
        "table",
        "with op.batch_alter_table('one') as batch:",
        "    batch.alter_column('name', existing_type=sa.String(5), type_=sa.String(50))",
    )
    upgrade(empty, "table")
    with empty.begin() as connection:
        for _ in range(rows):
            connection.execute(text("INSERT INTO one (name) VALUES ('x')"))
        connection.execute(text("DELETE FROM one WHERE id > 1"))
    upgrade(empty)
    ids = []
    for _ in range(2):
        with empty.begin() as connection:
            ids.append(connection.scalar(text("INSERT INTO one (name) VALUES ('longer than five') RETURNING id")))
            connection.execute(text("DELETE FROM one WHERE id > 1"))
    assert ids == [rows + 1, rows + 2] if rows else ids == [1, 2]


def test_an_enum_leaves_nothing_behind_when_its_table_goes(empty: Engine, none: Path) -> None:
    column = "sa.Column('state', sa.Enum('new', 'sent', name='state'), nullable=False)"
    write(none, "table", None, f"op.create_table('one', {column})", downgrade=("op.drop_table('one')",))
    write(none, "column", "table", f"op.add_column('one', {column.replace('state', 'other')})")
    upgrade(empty, "table")
    downgrade(empty, "base")
    upgrade(empty)
    assert {column["name"] for column in inspect(empty).get_columns("one")} == {"state", "other"}


@pytest.mark.slow
def test_several_that_migrate_at_once_wait_for_each_other(empty: Engine, none: Path, url: str) -> None:
    for number in range(4):
        write(
            none,
            f"r{number}",
            f"r{number - 1}" if number else None,
            f"op.execute('CREATE TABLE t{number} (n INTEGER)')",
            "with op.get_context().autocommit_block():",
            f"    op.execute('CREATE INDEX ix_t{number} ON t{number} (n)')",
        )
    migrate = (
        "import sys; from pathlib import Path; from alembic import command; import app;"
        "from database import connect, migrations;"
        "migrations.PROJECT = Path(sys.argv[2]);"
        "engine = connect(sys.argv[1]); print('ready', flush=True); input();"
        "command.upgrade(migrations.alembic_config(engine), 'heads')"
    )
    command = [sys.executable, "-c", migrate, url, str(migrations.PROJECT)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command, cwd=ROOT, **pipes)) for _ in range(3)]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("\n")
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert applied(empty) == {"r3"}


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
    shipped = set(versions.rglob("*.py"))
    with database.begin() as connection:
        connection.execute(text("DROP TABLE schedule_slot"))
    assert run("check").exit_code == 1
    result = run("revision", "-m", "bring back the ledger")
    assert result.exit_code == 0, result.output
    (written,) = set(versions.rglob("*.py")) - shipped
    assert written.name.count("_bring_back_the_ledger_")
    assert written.parent.name == "infrastructure"
    assert 'sa.Column("slot", sa.DateTime(timezone=True), nullable=False)' in written.read_text()
    assert run("upgrade").exit_code == 0
    assert run("check").exit_code == 0


def test_alembic_itself_writes_an_empty_revision_to_be_filled_by_hand(database: Engine, versions: Path) -> None:
    shipped = set(versions.rglob("*.py"))
    command.revision(alembic_config(database), "by hand", head="infrastructure@head")
    (written,) = set(versions.rglob("*.py")) - shipped
    assert written.read_text().count("    pass\n") == 2
    upgrade(database)
    assert SHIPPED not in applied(database)
    downgrade(database, "infrastructure@-1")
    assert applied(database) == HEADS


def test_a_default_that_only_the_model_has_is_found(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    column = Base.metadata.tables["schedule_slot"].columns["outcome"]
    monkeypatch.setattr(column, "server_default", DefaultClause("sent"))
    assert run("check").exit_code == 1


@pytest.mark.parametrize("dropped", [(), ("blog",)], ids=["with the blog", "without the blog"])
def test_what_an_update_adds_to_a_branch_reaches_a_database_with_revisions_of_the_teams_own(
    empty: Engine, versions: Path, dropped: tuple[str, ...]
) -> None:
    for branch in dropped:
        shutil.rmtree(versions / branch, ignore_errors=True)
    (versions / "notes").mkdir()
    needs = "branch_labels = ('notes',)\ndepends_on = ('0001_accounts',)"
    owner = "sa.Column('owner_id', sa.BigInteger(), sa.ForeignKey('user_account.id'))"
    write(
        versions / "notes",
        "note",
        None,
        f"op.create_table('note', {owner})",
        downgrade=("op.drop_table('note')",),
        more=needs,
    )
    upgrade(empty)
    write(
        versions / "notes",
        "text",
        "note",
        "op.add_column('note', sa.Column('text', sa.Text()))",
        downgrade=("op.drop_column('note', 'text')",),
    )
    upgrade(empty)
    user = {"username": "ada", "email": "-", "password_hash": "-", "is_admin": False}
    with empty.begin() as connection:
        connection.execute(insert(Base.metadata.tables["user_account"]), user)
        connection.execute(text("INSERT INTO note (owner_id, text) VALUES (1, 'mine')"))
    for branch, first, table in (
        ("accounts", "0001_accounts", "user_account"),
        ("infrastructure", SHIPPED, "transfer"),
        ("blog", "0001_blog", "post"),
    ):
        if (versions / branch).exists():
            write(versions / branch, f"new_{table}", first, f"op.add_column('{table}', sa.Column('new', sa.Text()))")
    upgrade(empty)
    found = inspect(empty).get_multi_columns()
    having_new = {table for (_, table), columns in found.items() if "new" in {column["name"] for column in columns}}
    assert having_new == {"user_account", "transfer"} | ({"post"} if (versions / "blog").exists() else set())
    assert scalar(empty, "SELECT text FROM note JOIN user_account ON owner_id = id") == "mine"
    downgrade(empty, "notes@base")
    assert "note" not in inspect(empty).get_table_names()
    assert scalar(empty, "SELECT username FROM user_account") == "ada"


def test_branches_are_all_applied(database: Engine, versions: Path) -> None:
    write(versions, "one", SHIPPED)
    write(versions, "two", SHIPPED)
    assert run("upgrade", "head").exit_code == 1
    assert run("upgrade").exit_code == 0
    assert applied(database) >= {"one", "two"}
