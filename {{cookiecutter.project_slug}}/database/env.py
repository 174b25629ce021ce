"""Alembic's environment: `alembic` and `python main.py db` both run it to reach the configured database."""

import fcntl
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import svcs
from alembic import context
from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy import Connection, Engine, Table, text

from app import create_app
from config import exit_on_problems
from database import Base
from database.base import UtcDateTime
from database.branches import split


class KeepNumbers(SQLiteImpl):
    """SQLite alters a table by copying it. The copy keeps AUTOINCREMENT, so that no row gets a number a second time."""

    __dialect__ = "sqlite"

    def prep_table_for_batch(self, batch_impl: Any, table: Table) -> None:
        super().prep_table_for_batch(batch_impl, table)
        copy, made = batch_impl.new_table, text("SELECT sql FROM sqlite_master WHERE name = :table")
        names = {"table": table.name, "copy": copy.name}
        if self.connection and "AUTOINCREMENT" in str(self.connection.scalar(made, names)):
            copy.dialect_options["sqlite"]["autoincrement"] = True
            last = text("INSERT INTO sqlite_sequence SELECT :copy, seq FROM sqlite_sequence WHERE name = :table")
            self.connection.execute(last, names)


def take_turn(connection: Connection, stack: ExitStack) -> None:
    """Wait until no other process migrates this database. The wait and the migration may take as long as they need."""
    if connection.dialect.name == "postgresql":
        connection.connection.driver_connection.patience = None  # type: ignore[union-attr]
        for statement in ("SET statement_timeout = 0", "SET lock_timeout = 0", "SELECT pg_advisory_lock(1)"):
            connection.exec_driver_sql(statement)
    else:
        folder = os.open(Path(str(connection.engine.url.database)).parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        fcntl.flock(folder, fcntl.LOCK_EX)
        # Otherwise, dropping a table that was copied would delete the rows that refer to it.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    connection.commit()


def render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Revisions name plain column types, so that they keep running when the models' own types change."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


# Alembic asks whether the database is at all heads. It is at those that no other branch depends on.
scripts = context.script
get_revisions = scripts.get_revisions
scripts.get_revisions = lambda names: get_revisions(  # type: ignore[method-assign, assignment]
    scripts.get_heads(consider_depends_on=True) if names == "heads" else names
)
# Which revisions run is news for whoever migrates; the rest is noise.
migrations = logging.getLogger("alembic.runtime.migration")
migrations.setLevel(logging.INFO)
migrations.addFilter(lambda record: str(record.msg).startswith("Running"))
with ExitStack() as stack:
    engine = context.config.attributes.get("engine")
    if engine is None:
        with exit_on_problems():
            app = create_app()  # This imports all models.
        stack.callback(svcs.flask.close_registry, app)
        with app.app_context():
            engine = svcs.flask.get(Engine)
    connection = stack.enter_context(engine.connect())
    # No session may get a connection that checks no references, or waits for ever.
    stack.callback(connection.invalidate)
    take_turn(connection, stack)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        # SQLite alters a table by copying it; this writes such steps where they are needed.
        render_as_batch=True,
        render_item=render_item,
        # Tables of programs beside the service, such as Litestream's, are none of its own.
        include_name=lambda name, kind, _parents: kind != "table" or not str(name).startswith("_"),
        process_revision_directives=lambda _context, _revision, directives: split(scripts, directives),
        # A revision that fails half-way leaves nothing behind, on SQLite too.
        transactional_ddl=True,
        transaction_per_migration=True,
        literal_binds=context.is_offline_mode(),
    )
    with context.begin_transaction():
        context.run_migrations()
