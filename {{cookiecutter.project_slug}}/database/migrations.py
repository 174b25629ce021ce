"""Alembic, run from Python: on the configured database, or on an engine at hand."""

import functools
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def alembic_config(engine: Engine | None = None) -> Config:
    """The `[tool.alembic]` table of pyproject.toml, wherever the process was started."""
    return Config(toml_file=str(PROJECT), stdout=sys.stdout, attributes={"engine": engine} if engine else {})


@functools.cache
def heads() -> frozenset[str]:
    """The newest revisions in `versions/`."""
    return frozenset(ScriptDirectory.from_config(alembic_config()).get_heads())


@functools.cache
def revisions() -> tuple[str, ...]:
    """All revisions in `versions/`, the first one first."""
    newest_first = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return tuple(reversed([script.revision for script in newest_first]))


def applied(engine: Engine) -> frozenset[str]:
    """The revisions that the database is at; none if it was never migrated."""
    with engine.connect() as connection:
        return frozenset(MigrationContext.configure(connection).get_current_heads())


def pending(engine: Engine) -> bool:
    """Whether the database waits for a revision of this code. One that newer code has migrated does not."""
    found = applied(engine)
    return found != heads() and found <= set(revisions())


def upgrade(engine: Engine, revision: str = "heads") -> None:
    """Bring the database up to `revision`."""
    command.upgrade(alembic_config(engine), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the database back to `revision`; `base` empties it."""
    command.downgrade(alembic_config(engine), revision)
