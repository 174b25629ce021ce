"""Copies of SQLite and PostgreSQL databases while others write, and their way back."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from click import ClickException
from sqlalchemy.engine import URL, make_url

from config import Settings


class BackupError(ClickException):
    """What could not be done, in a line for people, which a command prints; nothing is left half done."""


def database_url(settings: Settings) -> URL:
    given = settings.database.url
    return make_url(given) if given else URL.create("sqlite", database=str(settings.app_dir.database))


def copy_database(url: URL, target: Path) -> None:
    """Write a copy of the database as it is at one moment: a SQLite database, or a dump that pg_restore reads."""
    if url.get_backend_name() != "sqlite":
        _run("pg_dump", "--format=custom", f"--file={target}", url=url)
        return
    with closing(_open(Path(url.database or ""))) as live, closing(sqlite3.connect(target)) as copy:
        live.execute("BEGIN")  # Without it, the copy would start again with every write.
        live.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        live.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # One file, without others beside it.
        _require_sound(copy)


def restore_database(url: URL, copy: Path) -> None:
    """Check a SQLite database that lies in its place already; fill an empty PostgreSQL from a dump, all or nothing."""
    if url.get_backend_name() == "sqlite":
        with closing(_open(copy)) as database:
            _require_sound(database)
    else:
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
        _run("pg_restore", *options, str(copy), url=url)


def _require_sound(database: sqlite3.Connection) -> None:
    if (problem := database.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise BackupError(f"the database is damaged: {problem}")


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _run(program: str, *options: str, url: URL) -> None:
    """Run one of PostgreSQL's programs. The password is not among the options, which every user of the host can see."""
    plain = url.set(drivername="postgresql", password="").render_as_string(hide_password=False)
    environ = {**os.environ, "PGPASSWORD": url.password or "", "LC_ALL": "C"}
    try:
        subprocess.run(  # noqa: S603  (fixed programs, no shell)
            [program, *options, f"--dbname={plain}"], env=environ, check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise BackupError(f"{program} is not installed; run: apt-get install postgresql-client") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.splitlines() or ["failed"]
        raise BackupError(next((line for line in lines if "error:" in line), lines[-1])) from None
