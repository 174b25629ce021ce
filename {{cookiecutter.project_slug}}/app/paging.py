"""Pages of a long list that are as fast at the millionth row as at the first, because each begins at a known row."""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import svcs
from flask import request
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

PAGE_SIZE = 10

Query = Select[*tuple[Any, ...]]
_newest: WeakKeyDictionary[Query, Query] = WeakKeyDictionary()


class Page(NamedTuple):
    """Some rows, newest first, and whether there are pages of newer and older ones."""

    rows: list[Any]
    has_newer: bool
    has_older: bool


def requested_page(query: Query, number: InstrumentedAttribute[int]) -> Page:
    """The rows that the request's address asks for with `?before=NUMBER` or `?after=NUMBER`; otherwise the newest.

    Args:
        query: selects the whole list: a model gives models, several columns give rows, which take half the time. Of
            one that a module makes once, the first page's statement is made once, too.
        number: the column that the list is sorted by, unique and higher for newer rows.
    """
    before, after = (request.args.get(name, type=row_number) for name in ("before", "after"))
    if after is not None:
        statement = query.where(number > after).order_by(number).limit(PAGE_SIZE + 1)
    else:
        if query not in _newest:
            _newest[query] = query.order_by(number.desc()).limit(PAGE_SIZE + 1)
        statement = _newest[query]
        if before is not None:
            statement = statement.where(number < before)
    result = svcs.flask.get(Session).execute(statement)
    found: list[Any] = list(result.scalars() if len(result.keys()) == 1 else result)
    more, rows = len(found) > PAGE_SIZE, found[:PAGE_SIZE]
    if after is not None:
        return Page(rows[::-1], has_newer=more, has_older=bool(rows))
    return Page(rows, has_newer=before is not None and bool(rows), has_older=more)


def row_number(number: str | int) -> int:
    """The nearest number that a row can have: an address may name any, and databases refuse larger ones."""
    return max(0, min(int(number), 2**63 - 1))
