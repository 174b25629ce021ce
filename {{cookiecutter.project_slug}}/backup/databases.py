"""Copies of SQLite and PostgreSQL databases while others write, their checks, and their way back."""

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from backup.archive import Database
from backup.errors import BackupError, Refused
from config import Settings
from database import connect

# Pages of SQLite that are copied between two looks at whether to stop.
PAGES = 2048
TABLES = """
    SELECT count(*) FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND nspname !~ '^(pg_|information_schema$)'
"""


def address(settings: Settings) -> URL:
    """Where the tables are.

    Raises:
        ConfigError: the setting is no URL, or one of a database that cannot be backed up.
    """
    given = settings.database.url
    try:
        url = make_url(given) if given else URL.create("sqlite", database=str(settings.app_dir.database))
    except (ArgumentError, ValueError):
        raise settings.wrong("database.url", given, "expected one like postgresql://user:password@host/name") from None
    if url.get_backend_name() not in ("sqlite", "postgresql") or url.database in (None, "", ":memory:"):
        raise settings.wrong("database.url", given, "only SQLite in a file and PostgreSQL can be backed up")
    return url


def copy_sqlite(source: Path, target: Path, seen: Callable[[int], object]) -> Database:
    """Copy a database in one transaction that reads, so that all others go on writing; checks the copy.

    Args:
        source: the database in use.
        target: a file that is not there yet.
        seen: is told how many bytes were copied since it was told last.

    Raises:
        BackupError: there is no database, or it is damaged, or the copy cannot be written.
    """
    if not source.is_file():
        raise BackupError(f"{source}: there is no database; run `python main.py db upgrade`")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with _sqlite_errors(source), _open(source) as live, _open(target) as copy:
        live.execute("BEGIN")  # Without it, the copy would start anew with every write of somebody else.
        live.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        size = live.execute("PRAGMA page_size").fetchone()[0]
        copy.execute("PRAGMA synchronous = OFF")
        left = 0

        def progress(_status: int, remaining: int, total: int) -> None:
            nonlocal left
            seen(((left or total) - remaining) * size)
            left = remaining

        live.backup(copy, pages=PAGES, progress=progress)
        copy.execute("PRAGMA journal_mode = DELETE")  # One file, without others beside it.
    require_sound_sqlite(target)
    with _sqlite_errors(target), _open(target) as copy:
        known = copy.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'alembic_version'").fetchone()[0]
        rows = copy.execute("SELECT version_num FROM alembic_version").fetchall() if known else []
    return Database("sqlite", sqlite3.sqlite_version, sorted(row[0] for row in rows))


def require_sound_sqlite(path: Path) -> None:
    """Raise `Refused` if a file is no SQLite database, or a damaged one."""
    try:
        with _sqlite_errors(path), _open(path) as database:
            problem = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except BackupError as error:
        raise Refused(str(error)) from None
    if problem != "ok":
        raise Refused(f"the database {path.name} is damaged: {' '.join(problem.split())}")


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as database:
        yield database


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BackupError(f"the database {path.name}: {error}") from None


def dump_postgres(settings: Settings, url: URL, target: Path) -> Database:
    """Write a dump of the database as it is now, while others go on writing.

    Raises:
        ConfigError: the URL cannot be used.
        BackupError: pg_dump is not there or too old, or it fails.
    """
    from database.migrations import applied

    with _postgres(settings, url) as engine, engine.connect() as connection:
        version = str(connection.scalar(text("SHOW server_version")))
        revisions = sorted(applied(engine))
    major = int(version.partition(".")[0])
    found = re.search(r"\d+", _run("pg_dump", ["--version"], url))
    if found and int(found[0]) < major:
        raise BackupError(f"pg_dump {found[0]} is too old for the server's {major}: {_install(f'-{major}')}")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    _run("pg_dump", ["--format=custom", f"--file={target}", _connection(url)], url)
    return Database("postgresql", version, revisions)


def require_sound_dump(path: Path) -> None:
    """Raise `Refused` if pg_restore cannot read a dump to its end."""
    try:
        _run("pg_restore", ["--file=/dev/null", str(path)])
    except Failed as error:
        raise Refused(f"the dump {path.name} is damaged: {error}") from None


def require_empty(settings: Settings, url: URL) -> None:
    """Raise `Refused` if there is a table in the database already."""
    with _postgres(settings, url) as engine, engine.connect() as connection:
        if count := connection.scalar(text(TABLES)):
            raise Refused(
                f"the database {shown(url)} has {count} tables and sequences; name an empty one, DATABASE_URL=…"
            )


def restore_postgres(url: URL, dump: Path) -> None:
    """Fill an empty database from a dump, all or nothing.

    Raises:
        BackupError: it fails; the database is as empty as before.
    """
    # Roles of the old server may not exist on the new one: everything belongs to who restores it.
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    _run("pg_restore", [*options, _connection(url), str(dump)], url)


def shown(url: URL) -> str:
    """A URL without its password."""
    return url.difference_update_query(["password"]).render_as_string()


@contextmanager
def _postgres(settings: Settings, url: URL) -> Iterator[Engine]:
    try:
        engine = connect(url, timeout=settings.database.timeout)
    except ValueError as error:
        raise settings.wrong("database.url", settings.database.url, error) from None
    try:
        yield engine
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", error)
        raise BackupError(f"database: {' '.join(str(reason).split())}") from None
    finally:
        engine.dispose()


def _connection(url: URL) -> str:
    """The option that names a database to PostgreSQL's programs. Its password is not in it: anybody can read these."""
    plain = url._replace(drivername="postgresql", password=None).difference_update_query(["password"])
    # Asked to hide a password, SQLAlchemy writes *** where there is none.
    return f"--dbname={plain.render_as_string(hide_password=False)}"


class Failed(BackupError):
    """A program of PostgreSQL has ended with an error."""


def _run(program: str, arguments: list[str], url: URL | None = None) -> str:
    """What one of PostgreSQL's programs prints."""
    if not (found := shutil.which(program)):
        raise BackupError(f"{program} is not installed: {_install()}")
    environment = {**os.environ, "LC_ALL": "C"}
    if url and (password := url.password or url.query.get("password")):
        environment["PGPASSWORD"] = str(password)
    result = subprocess.run([found, *arguments], env=environment, capture_output=True, text=True, check=False)  # noqa: S603  (no shell)
    if result.returncode:
        # The first line of an error is the reason, what follows is where.
        lines = [line for line in result.stderr.splitlines() if "error:" in line] or result.stderr.splitlines()
        raise Failed((lines or [f"{program}: exit code {result.returncode}"])[0])
    return result.stdout


def _install(version: str = "") -> str:
    return f"apt-get install postgresql-client{version}"
