"""Commands around settings and the app folder."""

import json
import sys
from typing import Any

import click
import msgspec

from config import Settings, find_app_dir, load, mask

of_user = click.option("--user", help="The service's user, who owns what it writes. As it is, if not given.")
of_group = click.option("--group", help="The group that may read it. As it is, if not given.")


@click.group()
def config() -> None:
    """The settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, key to value and source.")
def show(as_json: bool) -> None:
    """Print every setting and where it came from. Secrets are masked."""
    settings = load()
    origins = sorted(settings.origins.items())
    rows = {key: {"value": mask(key, _value(settings, key)), "source": source} for key, source in origins}
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    click.echo(f"environment: {settings.environment}\napp folder:  {settings.app_dir.path}\n")
    for key, row in rows.items():
        click.echo(f"{key} = {json.dumps(row['value'], ensure_ascii=False)}  {click.style(row['source'], dim=True)}")


@click.group()
def appdir() -> None:
    """The folder that holds config, data and logs."""


@appdir.command()
@of_user
@of_group
def make(user: str | None, group: str | None) -> None:
    """Make what is missing, with a fresh secret, and mend modes and owners. What is in files stays as it is."""
    folder = find_app_dir()
    for line in folder.make(user, group):
        click.echo(line)
    click.echo(f"ok: {folder.path}")


@appdir.command()
@of_user
@of_group
def check(user: str | None, group: str | None) -> None:
    """Exit with 0 if there is nothing to mend, with 1 and a line for each thing if there is."""
    folder = find_app_dir()
    lines = folder.check(user, group)
    click.echo("\n".join(lines) or f"ok: {folder.path}")
    sys.exit(1 if lines else 0)


def _value(settings: Settings, key: str) -> Any:
    """The typed value at a dotted key; a table of free keys may have dots in them."""
    section, _, rest = key.partition(".")
    value = msgspec.to_builtins(getattr(settings, section))
    while rest and isinstance(value, dict):
        name = next(name for name in value if rest == name or rest.startswith(f"{name}."))
        value, rest = value[name], rest[len(name) + 1 :]
    return value
