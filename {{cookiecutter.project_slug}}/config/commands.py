"""Commands around settings and the app folder."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from config import SECTIONS, find_app_dir, load, mask
from config.settings import source_of


@click.group()
def config() -> None:
    """The settings."""


@config.command()
def show() -> None:
    """Print every setting and where it came from. Secrets are masked."""
    settings = load()
    click.echo(f"environment: {settings.environment}\napp folder:  {settings.app_dir.path}\n")
    sections = {name: getattr(settings, name) for name in SECTIONS} | settings.features
    for section in sorted(sections):
        for key, value in _leaves(section, msgspec.to_builtins(sections[section])):
            shown = json.dumps(mask(key, value), ensure_ascii=False)
            click.echo(f"{key} = {shown}  {click.style(source_of(key, settings.origins), dim=True)}")


@click.group()
def appdir() -> None:
    """The folder that holds config, data and logs."""


@appdir.command()
@click.option("--user", help="The service's user, who owns what it writes. As it is, if not given.")
@click.option("--group", help="The group that may read it. As it is, if not given.")
def make(user: str | None, group: str | None) -> None:
    """Make what is missing, with a fresh secret, and mend modes and owners. What is in files stays as it is."""
    folder = find_app_dir()
    folder.make(user, group)
    click.echo(f"ok: {folder.path}")


@appdir.command()
def check() -> None:
    """Exit with 0 if there is nothing to mend, with 1 and a line for each thing if there is."""
    folder = find_app_dir()
    lines = folder.check()
    click.echo("\n".join(lines) or f"ok: {folder.path}")
    sys.exit(1 if lines else 0)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each value at or below a key, with its dotted name."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value
