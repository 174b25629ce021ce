"""Commands for the files of a disk."""

import errno
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

import click

from config import find_app_dir, load
from config.privileges import become_service_user
from storage.backend import Entry
from storage.disks import open_disks
from storage.errors import StorageError
from storage.storage import Storage
from storage.streams import CHUNK


class StorageGroup(click.Group):
    """Turns the storage's errors into lines for people."""

    def invoke(self, context: click.Context) -> object:
        """Run the command; exit 1 with one line if the storage refuses."""
        try:
            return super().invoke(context)
        except StorageError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # Click ends quietly when nobody reads on.
            raise click.ClickException(error.strerror or str(error)) from None


@click.group(cls=StorageGroup)
def storage() -> None:
    """The files of a disk, wherever it is. Root works as the service's user."""
    become_service_user(find_app_dir())


def open_disk(_context: click.Context, _parameter: click.Parameter, name: str) -> Storage:
    """The disk of that name."""
    disks = open_disks(load())
    if name not in disks:
        raise click.BadParameter(f"{name!r} is none of the disks {', '.join(sorted(disks))}")
    return disks[name]


def open_place(_context: click.Context, parameter: click.Parameter, text: str) -> Storage:
    """A disk by its name, any storage by its URL, or a folder of this machine, which has to be told from a disk."""
    disks = open_disks(load())
    if text in disks:
        return disks[text]
    try:
        if "://" in text:
            return Storage(text)
        if text not in (".", "..") and not text.startswith(("/", "./", "../")):
            raise ValueError(f"{text!r} is none of the disks {', '.join(sorted(disks))}; write a folder as ./name")
        folder = Path(text).absolute()
        if parameter.name == "source" and not folder.is_dir():
            raise ValueError(f"{text!r}: there is no such folder")
        return Storage(folder.as_uri())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


on_disk = click.option(
    "--disk", "files", default="default", show_default=True, callback=open_disk, help="Its name in config/storage.yaml."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace a file that is there.")


@storage.command()
@click.argument("prefix", default="")
@click.option("--recursive/--no-recursive", default=True, help="Also what lies in folders below; so if not given.")
@on_disk
@as_json
def ls(files: Storage, prefix: str, recursive: bool, as_json: bool) -> None:
    """List the files below the folder PREFIX.

    A line holds the size in bytes, the time in UTC, and the path.
    """
    entries = files.list(prefix, recursive=recursive)
    if not as_json:
        for entry in entries:
            click.echo(_line(entry))
        return
    # Written as it comes, so that any number of entries fits.
    separator = "[\n"
    for entry in entries:
        click.echo(separator + json.dumps(_fields(entry), ensure_ascii=False), nl=False)
        separator = ",\n"
    click.echo("\n]" if separator == ",\n" else "[]")


@storage.command()
@click.argument("path")
@on_disk
@as_json
def stat(files: Storage, path: str, as_json: bool) -> None:
    """Show the size, time and tag of the file PATH."""
    fields = _fields(files.stat(path))
    if as_json:
        click.echo(json.dumps(fields, indent=2, ensure_ascii=False))
        return
    for name, value in fields.items():
        click.echo(f"{name:9} {value}")


@storage.command()
@click.argument("path")
@click.argument("target", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@on_disk
def read(files: Storage, path: str, target: str) -> None:
    """Print the file PATH.

    It is written to the local file TARGET, if one is given.
    """
    with files.open(path) as reader, _open_local(target) as writer:
        _copy(reader, writer, files.stat(path).size, "reading")


@storage.command()
@click.argument("path")
@click.argument("source", type=click.File("rb"), default="-")
@click.option("--no-overwrite", is_flag=True, help="Refuse to replace a file.")
@on_disk
def write(files: Storage, path: str, source: BinaryIO, no_overwrite: bool) -> None:
    """Write the file PATH, all or nothing.

    It will hold what the local file SOURCE holds, or what comes from standard input.
    """
    with files.open(path, "wb", overwrite=not no_overwrite) as writer:
        _copy(source, writer, _size_of(source), "writing")


@storage.command()
@click.argument("source")
@click.argument("target")
@overwrite
@on_disk
def move(files: Storage, source: str, target: str, overwrite: bool) -> None:
    """Give the file SOURCE the path TARGET."""
    files.move(source, target, overwrite=overwrite)


@storage.command()
@click.argument("source")
@click.argument("target")
@overwrite
@on_disk
def copy(files: Storage, source: str, target: str, overwrite: bool) -> None:
    """Give the file SOURCE a copy at the path TARGET."""
    files.copy(source, target, overwrite=overwrite)


@storage.command()
@click.argument("path")
@click.option("--recursive", is_flag=True, help="Remove all files below the folder PATH.")
@on_disk
def remove(files: Storage, path: str, recursive: bool) -> None:
    """Delete the file PATH."""
    if recursive:
        click.echo(f"removed {files.remove_tree(path)} files")
    else:
        files.remove(path)


@storage.command()
@click.argument("source", callback=open_place)
@click.argument("target", callback=open_place)
@click.option("--delete", is_flag=True, help="Remove what only TARGET has.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@as_json
def sync(source: Storage, target: Storage, delete: bool, dry_run: bool, as_json: bool) -> None:
    """Copy to TARGET what it lacks of SOURCE.

    Each is a disk's name, a storage's URL, or a folder of this machine, written as ./name or /name. A file is copied
    if TARGET does not have it, has it in another size, or has an older one. What is interrupted goes on where it
    stopped when it is run again.
    """
    from storage.sync import overlap, perform, plan

    if overlap(source, target):
        raise click.UsageError("SOURCE and TARGET lie in one another")
    steps = list(plan(source, target, delete=delete))
    # First what is removed, since a file may stand where a folder is needed.
    steps.sort(key=lambda step: step.action, reverse=True)
    if not dry_run:
        size = sum(step.entry.size for step in steps if step.action == "copy")
        with _progress(len(steps) > 1 or size > 8 * CHUNK) as progress:
            task = progress.add_task("syncing", total=size)
            for step in steps:
                perform(step, source, target, partial(progress.advance, task))
    if as_json:
        click.echo(json.dumps([{"action": step.action, **_fields(step.entry)} for step in steps], ensure_ascii=False))
        return
    if dry_run:
        for step in steps:
            click.echo(f"{step.action:6} {step.entry.path}")
    copied = [step.entry.size for step in steps if step.action == "copy"]
    would = "would be " if dry_run else ""
    files = "file" if len(copied) == 1 else "files"
    click.echo(f"{len(copied)} {files} of {sum(copied)} bytes {would}copied, {len(steps) - len(copied)} {would}removed")


def _fields(entry: Entry) -> dict[str, Any]:
    return {**entry._asdict(), "modified": entry.modified.isoformat()}


def _line(entry: Entry) -> str:
    return f"{entry.size:>12}  {entry.modified.astimezone(UTC):%Y-%m-%d %H:%M}  {entry.path}"


@contextmanager
def _open_local(path: str) -> Iterator[IO[bytes]]:
    """A file of this machine that appears whole or not at all; standard output or a device as it comes."""
    place = Path(path).resolve()
    if path == "-" or (place.exists() and not place.is_file()):
        with click.open_file(path, "wb") as file:
            yield file
        return
    half = place.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with half.open("xb") as file:
            yield file
        half.replace(place)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    finally:
        half.unlink(missing_ok=True)


def _size_of(file: BinaryIO) -> int | None:
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None


def _copy(source: BinaryIO, target: IO[bytes], size: int | None, what: str) -> None:
    with _progress(size is None or size > 8 * CHUNK) as progress:
        task = progress.add_task(what, total=size)
        while chunk := source.read(CHUNK):
            target.write(chunk)
            progress.advance(task, len(chunk))


def _progress(is_long: bool) -> Any:
    """A bar on the terminal for work that takes a while; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    shown = is_long and sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)
