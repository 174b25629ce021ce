"""What Alembic knows: the revisions in `versions/`, and those that a database is at."""

import functools
import sys
from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect

from database.base import Base

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def alembic_config(engine: Engine | None = None) -> Config:
    """The `[tool.alembic]` table of pyproject.toml, for the configured database or for that of an engine."""
    return Config(toml_file=str(PROJECT), stdout=sys.stdout, attributes={"engine": engine} if engine else {})


@functools.cache
def scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


def applied(engine: Engine) -> set[str]:
    """The revisions that the database is at; none if it was never migrated."""
    with engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads())


def missing(engine: Engine) -> list[str]:
    """The columns that the models have and the database lacks, whatever revisions it says it is at."""
    found = inspect(engine).get_multi_columns()
    names = {table: {column["name"] for column in columns} for (_, table), columns in found.items()}
    columns = (column for table in Base.metadata.tables.values() for column in table.columns)
    return sorted(str(column) for column in columns if column.name not in names.get(column.table.name, ()))


def pending(engine: Engine) -> bool:
    """Whether the database waits for a revision of this code. One that newer code has migrated does not."""
    found, known = applied(engine), scripts()
    # A head that another branch depends on is not recorded.
    heads = set(known.get_heads(consider_depends_on=True))
    return found != heads and found <= {script.revision for script in known.walk_revisions()}
