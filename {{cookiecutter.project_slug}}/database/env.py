"""Alembic's environment: `alembic` and `python main.py db` both run it to reach the configured database."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import svcs
from alembic import context
from sqlalchemy import Connection, Engine

from app import create_app
from config import exit_on_problems
from database import Base
from database.base import UtcDateTime


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine the caller passed, else that of the configured service, which imports all models."""
    if (given := context.config.attributes.get("engine")) is not None:
        yield given
        return
    with exit_on_problems():
        app = create_app()
    try:
        with app.app_context():
            yield svcs.flask.get(Engine)
    finally:
        svcs.flask.close_registry(app)


def render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Revisions name plain column types, so that they keep running when the models' own types change."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: Connection | None, dialect_name: str) -> None:
    """Migrate through `connection`; without one, print the SQL (`--sql`)."""
    context.configure(
        connection=connection,
        dialect_name=dialect_name,
        target_metadata=Base.metadata,
        # SQLite alters a table by copying it; this writes such steps where they are needed.
        render_as_batch=True,
        render_item=render_item,
        # A revision that fails half-way leaves nothing behind, on SQLite too.
        transactional_ddl=True,
        transaction_per_migration=True,
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        context.run_migrations()


with engine() as target:
    # Which revisions run is news for whoever migrates, and noise in the logs of a web server.
    migrations = logging.getLogger("alembic.runtime.migration")
    migrations.setLevel(logging.INFO)
    migrations.addFilter(lambda record: str(record.msg).startswith("Running"))
    if context.is_offline_mode():
        run(None, target.dialect.name)
    else:
        with target.connect() as connection:
            if target.dialect.name == "sqlite":
                # Dropping a table that is being copied would delete the rows that refer to it. The connection is
                # detached, so that it is closed afterwards and never handed to a session.
                connection.detach()
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
            run(connection, target.dialect.name)
