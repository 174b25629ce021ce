"""Engine and sessions for SQLite and PostgreSQL."""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session, sessionmaker


def connect(
    url: str | URL, *, timeout: float = 10, pool_size: int = 5, pool_overflow: int = 10, echo: bool = False
) -> Engine:
    """An engine that has opened no connection yet.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.
        timeout: seconds to wait for a lock (SQLite), for a server (PostgreSQL), or for a free connection.
        pool_size: connections kept open.
        pool_overflow: connections that may be opened beyond `pool_size`.
        echo: log every statement.

    Raises:
        ValueError: the URL is not one of a supported database.
    """
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("expected a URL like postgresql://user:password@host/name") from None
    # Statements are logged without their values, which may be anybody's secrets.
    options: dict[str, Any] = {"echo": echo, "hide_parameters": True}
    if address.database not in (None, "", ":memory:"):
        options |= {"pool_size": pool_size, "max_overflow": pool_overflow, "pool_timeout": timeout}
    backend = address.get_backend_name()
    if backend == "sqlite":
        return _connect_sqlite(address, timeout, options)
    if backend == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
        wait = {"connect_timeout": max(2, round(timeout))}
        try:
            return create_engine(address, pool_pre_ping=True, connect_args=wait, **options)
        except ModuleNotFoundError:
            raise ValueError("psycopg is not installed; run `make lock EXTRAS=postgres && make setup`") from None
    raise ValueError(f"{backend} is not supported, expected sqlite or postgresql")


def _connect_sqlite(url: URL, timeout: float, options: dict[str, Any]) -> Engine:
    if url.host:
        raise ValueError("expected sqlite:///path, with three slashes")
    connection = {"timeout": timeout, "check_same_thread": False}
    engine = create_engine(url.set(drivername="sqlite"), connect_args=connection, **options)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: it begins them too late and never IMMEDIATE.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start, unless the transaction only reads.

    A transaction that reads first and asks for the lock later is refused, or loses another one's update.
    """
    options = connection.get_execution_options()
    read_only = options.get("read_only", False)
    raw = connection.connection.cursor()
    raw.execute(f"PRAGMA query_only = {int(read_only)}")
    try:
        if not options.get("single_statements", False):
            raw.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        # SQLAlchemy wraps what its own statements raise, and this is not one of them.
        raise OperationalError("BEGIN", None, error) from error
    raw.close()


def sessions(engine: Engine, *, read_only: bool = False) -> sessionmaker[Session]:
    """A factory of sessions.

    Args:
        engine: what `connect` returned.
        read_only: sessions that cannot write; on SQLite any number of them work beside one writer.
    """
    if read_only:
        engine = engine.execution_options(read_only=True, postgresql_readonly=True)
    return sessionmaker(engine, expire_on_commit=False)


def single_statements(engine: Engine) -> Engine:
    """The same database, each of whose statements is a transaction of its own, with as few round trips as can be.

    On PostgreSQL these are other connections, which do not wait for the server's disk, as SQLite does not either: for
    what can be done again if a power cut undoes the last moments. A lost connection is noticed by an error.
    """
    if engine.dialect.name == "sqlite":
        return engine.execution_options(single_statements=True)
    direct = create_engine(
        engine.url, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args={"connect_timeout": 10}
    )
    event.listen(direct, "connect", _do_not_wait_for_disk)
    return direct


def _do_not_wait_for_disk(connection: Any, _record: object) -> None:
    connection.autocommit = True
    connection.execute("SET synchronous_commit TO OFF")
