"""What the commands of the app have in common: errors in one line, tables for people, JSON for programs."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from dramatiq.errors import BrokerConnectionError
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError

from database import utc_now

WIDTH = 100
WIDEST_CELL = 26
COLOURS = {"running": "green", "done": "green", "failed": "red", "delayed": "cyan"}
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with times in UTC.")


class WrongInput(click.ClickException):
    """The command is about something that is not there, or cannot be read."""

    exit_code = 2


class ServiceGroup(AppGroup):
    """Turns failures of the database or the broker's server into lines for people."""

    def invoke(self, context: click.Context) -> object:
        """Run the command; exit 1 with one line if a server cannot be reached."""
        try:
            return super().invoke(context)
        except BrokerConnectionError as error:
            raise click.ClickException(_one_line(f"queue: {error}")) from None
        except DBAPIError as error:
            raise click.ClickException(_one_line(f"database: {error.orig}")) from None


def print_json(value: Any) -> None:
    """For programs: everything, with times in UTC."""

    def plain(value: Any) -> str:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    click.echo(json.dumps(value, indent=2, default=plain))


def print_table(header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Aligned columns, of which the last one has what is left of the line."""
    table = [header, *(tuple(map(_cell, row)) for row in rows)]
    widths = [min(WIDEST_CELL, max(map(len, column))) for column in zip(*table, strict=True)]
    widths[-1] = WIDTH - sum(widths[:-1]) - 2 * len(widths[:-1])
    for row in table:
        cells = [_clipped(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
        colours = [COLOURS.get(cell) for cell in row]
        coloured = [click.style(cell, colour) if colour else cell for cell, colour in zip(cells, colours, strict=True)]
        click.echo("  ".join(coloured).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return relative(value) if isinstance(value, datetime) else printable(str(value))


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def printable(text: str) -> str:
    """Arguments and errors may hold anything, also what would command a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def relative(time: datetime) -> str:
    """A time as people say it."""
    seconds = (time - utc_now()).total_seconds()
    for size, unit in UNITS:
        if abs(seconds) >= size:
            amount = f"{abs(seconds) // size:.0f} {unit}"
            return f"in {amount}" if seconds > 0 else f"{amount} ago"
    return "now"
