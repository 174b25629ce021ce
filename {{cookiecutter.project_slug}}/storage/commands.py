"""Commands for the files of a disk."""

import shutil
from typing import BinaryIO

import click

from config import find_app_dir, load
from config.privileges import become_service_user
from storage import Storage
from storage.disks import open_disks


@click.group()
@click.option("--disk", default="default", show_default=True, help="Its name in config/storage.yaml.")
@click.pass_context
def storage(context: click.Context, disk: str) -> None:
    """List, read and change the files of a disk. Root works as the service's user."""
    become_service_user(find_app_dir())
    context.obj = open_disks(load())[disk]


@storage.command()
@click.argument("prefix", default="")
@click.pass_obj
def ls(disk: Storage, prefix: str) -> None:
    """List the files below the folder PREFIX: size in bytes, time in UTC, path."""
    for entry in disk.list(prefix):
        click.echo(f"{entry.size:>12}  {entry.modified:%Y-%m-%d %H:%M}  {entry.path}")


@storage.command()
@click.argument("path")
@click.pass_obj
def read(disk: Storage, path: str) -> None:
    """Print the file PATH."""
    with disk.reader(path) as reader:
        for chunk in iter(lambda: reader.read(1 << 20), b""):
            click.echo(chunk, nl=False)


@storage.command()
@click.argument("path")
@click.argument("source", type=click.File("rb"), default="-")
@click.pass_obj
def write(disk: Storage, path: str, source: BinaryIO) -> None:
    """Write the file PATH from the local file SOURCE, or from standard input: whole, or not at all."""
    with disk.writer(path) as writer:
        shutil.copyfileobj(source, writer)


@storage.command()
@click.argument("source")
@click.argument("target")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.pass_obj
def move(disk: Storage, source: str, target: str, overwrite: bool) -> None:
    """Move the file SOURCE to TARGET."""
    disk.move(source, target, overwrite=overwrite)


@storage.command()
@click.argument("path")
@click.pass_obj
def remove(disk: Storage, path: str) -> None:
    """Delete the file PATH."""
    disk.remove(path)
