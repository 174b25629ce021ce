"""Pages of a long list that are as fast at the millionth row as at the first, because each begins at a known row."""

from typing import Generic, NamedTuple, TypeVar

import svcs
from flask import request
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

PAGE_SIZE = 10

Row = TypeVar("Row")


class Page(NamedTuple, Generic[Row]):
    """Some rows, newest first, and whether there are pages of newer and older ones."""

    rows: list[Row]
    has_newer: bool
    has_older: bool


def requested_page(query: Select[Row], number: InstrumentedAttribute[int]) -> Page[Row]:
    """The rows that the request's address asks for with `?before=NUMBER` or `?after=NUMBER`; otherwise the newest.

    Args:
        query: selects the whole list.
        number: the column that the list is sorted by, unique and higher for newer rows.
    """
    before, after = (request.args.get(name, type=row_number) for name in ("before", "after"))
    if after is not None:
        query = query.where(number > after).order_by(number)
    else:
        query = query.order_by(number.desc())
        if before is not None:
            query = query.where(number < before)
    found = list(svcs.flask.get(Session).scalars(query.limit(PAGE_SIZE + 1)))
    more, rows = len(found) > PAGE_SIZE, found[:PAGE_SIZE]
    if after is not None:
        return Page(rows[::-1], has_newer=more, has_older=bool(rows))
    return Page(rows, has_newer=before is not None and bool(rows), has_older=more)


def row_number(number: str | int) -> int:
    """The nearest number that a row can have: an address may name any, and databases refuse larger ones."""
    return max(0, min(int(number), 2**63 - 1))
