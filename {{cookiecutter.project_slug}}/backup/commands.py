"""Commands that make, show, check and restore backups. They need no app: a fresh host has only the code."""

import shlex
import sys
from pathlib import Path

import click

from backup import archive
from config import find_app_dir, load
from config.privileges import become_service_user

file = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def backup() -> None:
    """Backups of the app folder and the database."""


@backup.command()
@click.argument("folder", required=False)
def create(folder: str | None) -> None:
    """Make a backup in FOLDER, or where `backup.folder` says, and print its path.

    With `-` it is written to standard output, for a program that encrypts it or sends it elsewhere.
    """
    become_service_user(find_app_dir())
    if folder == "-":
        archive.write(load(), sys.stdout.buffer)
    else:
        click.echo(archive.create(load(), Path(folder) if folder else None))


@backup.command("list")
def list_backups() -> None:
    """Show the backups where `backup create` puts them, oldest first, with their sizes in bytes."""
    settings = load()
    for path in archive.backups_in(settings.app_dir.path / settings.backup.folder, settings):
        click.echo(f"{path.stat().st_size:>14}  {path}")


@backup.command()
@file
def verify(file: Path) -> None:
    """Read the backup FILE to its end; exit with 1 and a line if it is damaged or altered."""
    become_service_user(find_app_dir())
    manifest = archive.verify(file, load())
    click.echo(f"ok: {len(manifest['files'])} files of version {manifest['version']}, made {manifest['created']}")


@backup.command()
@file
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="The new app folder.")
def restore(file: Path, folder: Path) -> None:
    """Make an app folder of the backup FILE.

    A PostgreSQL database goes into the empty one that the environment, or else the backup's .env, names.
    """
    archive.restore(file, folder.absolute(), load())
    click.echo(f"restored; next: APP_DIR={shlex.quote(str(folder.absolute()))} python main.py check")
