"""Commands that make, show, check and restore backups. They need no app: a fresh host has only the code."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from backup.errors import BackupError, Refused
from config import load
from config.privileges import become_service_user

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
file = click.argument("file", type=click.Path(path_type=Path))


class RefusedInput(click.ClickException):
    """What was named cannot be used."""

    exit_code = 2


class BackupGroup(click.Group):
    """Turns errors into lines for people."""

    def invoke(self, context: click.Context) -> object:
        """Run the command; exit 2 for what is refused, 1 for what fails."""
        # SIGTERM cleans up as Ctrl-C does.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(context)
        except Refused as error:
            raise RefusedInput(str(error)) from None
        except BackupError as error:
            raise click.ClickException(str(error)) from None
        finally:
            signal.signal(signal.SIGTERM, before)


@click.group(cls=BackupGroup)
def backup() -> None:
    """Backups of the app folder and the database."""


@backup.command()
@click.argument("dest", required=False, type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(min=1), help="How many backups stay there. [default: backup.keep]")
@as_json
def create(dest: Path | None, keep: int | None, as_json: bool) -> None:
    """Make a backup in the folder DEST, and print its path.

    The service may go on meanwhile. Without DEST it goes where `backup.folder` says, backups/ in the app folder. Older
    backups are removed when the new one is complete. Root makes it as the service's user, who must be able to write
    into DEST.
    """
    from backup.create import create

    settings = load()
    become_service_user(settings.app_dir)
    with _progress("backing up") as (progress, task):
        done = create(
            settings,
            dest,
            keep,
            start=lambda total: progress.update(task, total=total),
            seen=lambda count: progress.advance(task, count),
        )
    for line in done.not_included:
        click.echo(f"not included: {line}", err=True)
    for path in done.vanished:
        click.echo(f"vanished while the backup was made: {path!r}", err=True)
    click.echo(_json(done) if as_json else done.path)


@backup.command()
@click.argument("dest", required=False, type=click.Path(path_type=Path))
def database(dest: Path | None) -> None:
    """Copy the database alone into the folder DEST, and print the copy's path.

    For the moments before a migration. It is a SQLite database, or a dump that pg_restore reads, and it is not
    encrypted. Without DEST it goes where `backup create` puts backups, and `backup.keep` of such copies stay there.
    docs/backup.md says how to put one back.
    """
    from backup.create import copy_database

    settings = load()
    become_service_user(settings.app_dir)
    with _progress("copying the database") as (progress, task):
        path = copy_database(settings, dest, seen=lambda count: progress.advance(task, count))
    if path:
        click.echo(path)
    else:
        click.echo("nothing to copy: there is no database yet", err=True)


@backup.command("list")
@as_json
def list_backups(as_json: bool) -> None:
    """Show the backups where `backup create` puts them, oldest first: size in bytes, time in UTC, name."""
    from backup.create import TIME, backups_in, folder_of

    settings = load()
    folder = folder_of(settings)
    rows: list[dict[str, Any]] = []
    try:
        for path in backups_in(folder, settings.app.slug):
            time = path.name.removeprefix(f"{settings.app.slug}-").partition(".")[0]
            created = datetime.strptime(time, TIME).replace(tzinfo=UTC)
            encrypted = path.suffix == ".tar"
            rows.append(
                {"path": path, "created": created.isoformat(), "size": path.stat().st_size, "encrypted": encrypted}
            )
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror}") from None
    if as_json:
        click.echo(_json(rows))
        return
    for row in rows:
        note = "  encrypted" if row["encrypted"] else ""
        click.echo(f"{row['size']:>14}  {row['created'][:16].replace('T', ' ')}  {row['path'].name}{note}")


@backup.command()
@file
@as_json
def verify(file: Path, as_json: bool) -> None:
    """Read the backup FILE to its end and check all that is in it."""
    from backup.restore import verify

    settings = load()
    with _progress("verifying", file) as (progress, task):
        found = verify(file, settings, lambda position: progress.update(task, completed=position))
    if as_json:
        told = msgspec.to_builtins(found.manifest)
        click.echo(_json({"path": found.path, "files": found.files, "size": found.size, **told}))
        return
    known = found.manifest
    what = f"{known.slug} {known.version} with {known.database.kind}, {known.created}"
    click.echo(f"ok: {found.files} files of {found.size} bytes; {what}")


@backup.command()
@file
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="The new app folder.")
def restore(file: Path, folder: Path) -> None:
    """Make an app folder of the backup FILE; all of it is verified before.

    The folder has to be empty or not there. A PostgreSQL database goes into the empty one that DATABASE_URL names, in
    the environment or else in the backup's own .env.
    """
    from backup.databases import shown
    from backup.restore import is_user, restore

    settings = load()
    with _progress("verifying and restoring", file, times=2) as (progress, task):
        before = 0

        def position(now: int) -> None:
            nonlocal before
            progress.advance(task, max(0, now - before))
            before = now

        done = restore(file, folder, settings, position)
    known = done.backup.manifest
    click.echo(f"restored {done.backup.files} files of {known.created} to {done.folder}")
    for line in known.not_included:
        click.echo(f"not in the backup: {line}", err=True)
    click.echo("next:")
    here = f"APP_DIR={done.folder} " if done.folder != settings.app_dir.path else ""
    if done.database and "DATABASE_URL" in os.environ:
        click.echo(f"  write DATABASE_URL, {shown(done.database)}, into {done.folder / '.env'}")
    user, group = known.owner or "USER", known.group or "GROUP"
    if os.geteuid() == 0 and not is_user(known.owner):
        user, group = "USER", "GROUP"
        places = " ".join(str(done.folder / name) for name in ("data", "media", "sessions"))
        click.echo(f"  chown -R {user}:{group} {places}  # {known.owner or 'the old user'} is not known here")
    click.echo(f"  {here}python main.py appdir make --user {user} --group {group}")
    if done.is_behind:
        click.echo(f"  {here}python main.py db upgrade")
    click.echo(f"  {here}python main.py check")


def _json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=2, ensure_ascii=False)


@contextmanager
def _progress(what: str, file: Path | None = None, times: int = 1) -> Iterator[tuple[Any, Any]]:
    """A bar on the terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    size = file.stat().st_size * times if file and file.is_file() else None
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield progress, progress.add_task(what, total=size)
