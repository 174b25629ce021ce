"""What the commands of the app have in common: errors in one line, tables for people, JSON for programs."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from config import printable

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with times in UTC.")


def print_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    """Print JSON, or a table; where it is not printed on a terminal, each of its rows is one line."""
    if as_json:
        click.echo(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2, default=str))
        return
    # Here, because no process that serves has to print a table.
    from rich.console import Console
    from rich.table import Table

    table = Table(*(name.upper() for name in header), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    width = None if sys.stdout.isatty() else 10_000
    Console(markup=False, highlight=False, width=width).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S %Z}"
    return "-" if value is None else printable(str(value))
