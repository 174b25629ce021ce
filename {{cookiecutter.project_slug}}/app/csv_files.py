"""CSV files: read row by row, and written so that a spreadsheet runs nothing of what users have typed."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from wtforms import ValidationError

# Spreadsheets take such a cell for a formula (OWASP: CSV injection), full-width signs included. An apostrophe before
# it makes it text; one that was there already gets another, so that `read_rows` gives back what was written.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def write_rows(stream: BinaryIO, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows, in UTF-8 with the mark without which Excel takes it for Latin-1."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([f"'{cell}" if FORMULA.match(cell) else cell for cell in row] for row in rows)
    text.detach()


def read_rows(stream: BinaryIO, columns: Sequence[str], most: int) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows below a header that names `columns`, each with its number, which counts the header as spreadsheets do.

    Raises:
        ValidationError: the file is not CSV in UTF-8, has other columns, no rows, or more than `most`.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    rows = ((number, row) for number, row in enumerate(csv.reader(text, strict=True), 1) if row)
    number = count = 0
    try:
        number, header = next(rows, (1, []))
        if sorted(header) != sorted(columns):
            found = " ".join(", ".join(header).split())[:60] or "nothing"
            raise ValidationError(
                f"The first row must be {','.join(columns)}, the names of the columns. Found: {found}."
            )
        for count, (number, row) in enumerate(rows, 1):
            if count > most:
                raise ValidationError(f"This file has too many rows: it may have {most:,} below the header.")
            if len(row) != len(header):
                raise ValidationError(
                    f"Row {number} should have {len(header)} columns, but it has {len(row)}. "
                    "A text with a comma or a line break in it needs quotes around it."
                )
            if "\0" in "".join(row):  # PostgreSQL cannot store it.
                raise ValidationError(f"Row {number} is not text.")
            cells = (cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell for cell in row)
            yield number, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError:
        raise ValidationError("This file is not text in UTF-8. Save it as CSV in UTF-8.") from None
    except csv.Error:
        raise ValidationError(
            f"Row {number + 1}, or one after it, cannot be read: a quote is missing or wrong, or a text is too long."
        ) from None
    finally:
        text.detach()
    if not count:
        raise ValidationError("This file has no rows below the header.")
