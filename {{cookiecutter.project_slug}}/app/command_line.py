"""What the commands of the app have in common: errors in one line, tables for people, JSON for programs."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from flask.cli import AppGroup
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from config import printable

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with times in UTC.")


class WrongInput(click.ClickException):
    """The command is about something that is not there, or cannot be read."""

    exit_code = 2


class ServiceGroup(AppGroup):
    """A group of commands whose database errors are one line, with exit code 1."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except DBAPIError as error:
            raise click.ClickException(printable(f"database: {error.orig}")) from None


def print_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    """A table on the terminal, or JSON."""
    if as_json:
        click.echo(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2, default=str))
        return
    table = Table(*(name.upper() for name in header), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(markup=False, highlight=False).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return "-" if value is None else printable(str(value))
