"""Posts in CSV files: how they are read, and the report of what is wrong in one."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

COLUMNS = ("title", "body")
MOST_ROWS = 10_000
# What makes spreadsheets take a cell for a formula (OWASP: CSV injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class UnusableFile(Exception):
    """Why nothing of a file can be imported, in words for the user."""


class RowError(NamedTuple):
    """What is wrong in a row, which is counted as spreadsheets do: the header is row 1."""

    row: int
    column: str
    message: str
    found: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.column}: {self.message}"


def read_rows(stream: BinaryIO) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and columns of each row.

    Raises:
        UnusableFile: it is no CSV file of posts, or has too many of them.
    """
    header: list[str] = []
    number = count = 0
    try:
        for number, row in enumerate(csv.reader(_lines(stream), strict=True), 1):
            if not row:
                continue
            if not header:
                header = _checked_header(row)
                continue
            count += 1
            if count > MOST_ROWS:
                raise UnusableFile(f"This file has too many rows: at most {MOST_ROWS:,} posts are taken at once.")
            if len(row) != len(header):
                raise UnusableFile(
                    f"Row {number} should have {len(header)} columns and has {len(row)}. "
                    "A text with a comma or a line break in it needs quotes around it."
                )
            yield number, dict(zip(header, row, strict=True))
    except csv.Error:
        raise UnusableFile(
            f"Row {number + 1} cannot be read: a quote is missing or in the wrong place, or a text is far too long."
        ) from None
    if not count:
        raise UnusableFile("This file holds no posts." if header else "This file is empty.")


def write_report(stream: BinaryIO, errors: Iterable[RowError]) -> None:
    """Write errors as a CSV file that is safe to open in a spreadsheet."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    writer = csv.writer(text)
    writer.writerow(RowError._fields)
    writer.writerows((error.row, error.column, error.message, _as_text(error.found[:50])) for error in errors)
    text.detach()


def read_report(stream: BinaryIO) -> Iterator[RowError]:
    """The errors that `write_report` has written."""
    lines = csv.reader(_lines(stream))
    next(lines)
    return (RowError(int(row), column, message, found) for row, column, message, found in lines)


def _lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UnusableFile(f"Line {number} is not UTF-8 text. Save the file as CSV in UTF-8.") from None
        if "\0" in text:
            raise UnusableFile(f"Line {number} holds a NUL character, so this is not a CSV file.")
        yield text


def _checked_header(row: list[str]) -> list[str]:
    if sorted(row) != sorted(COLUMNS):
        found = " ".join(", ".join(row).split())[:60]
        raise UnusableFile(
            f"The first row has to name the columns {' and '.join(COLUMNS)}, with a comma between them; found {found}."
        )
    return row


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell
