"""Commands around settings."""

import json
from typing import Any

import click
import msgspec

from config import SECTIONS, load, mask


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, key to value and source.")
def show(as_json: bool) -> None:
    """Print every setting and where it came from. Secrets are masked."""
    settings = load()
    rows = {
        key: {"value": mask(key, _value(settings, key)), "source": source}
        for key, source in sorted(settings.origins.items())
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    click.echo(f"environment: {settings.environment}\napp folder:  {settings.app_dir.path}\n")
    for key, row in rows.items():
        click.echo(f"{key} = {json.dumps(row['value'], ensure_ascii=False)}  {click.style(row['source'], dim=True)}")


def _value(settings: Any, key: str) -> Any:
    """The typed value at a dotted key; below a table of free keys, what the table holds."""
    section, _, rest = key.partition(".")
    value = msgspec.to_builtins(getattr(settings, section)) if section in SECTIONS else None
    while rest and isinstance(value, dict):
        name = next(name for name in value if rest == name or rest.startswith(f"{name}."))
        value, rest = value[name], rest[len(name) + 1 :]
    return value
