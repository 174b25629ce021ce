"""Lists in pages, here of accounts."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import select

from app.accounts import User
from app.paging import Page, requested_page
from app.services import transaction

Show = Callable[[str], Page]
HUGE = 10**30


@pytest.fixture
def show(app: Flask) -> Show:
    """The page for the query of an address, of accounts with the numbers 1 to 25."""
    with transaction(app) as session:
        session.add_all(User(id=i, username=f"user-{i}", email="-", password_hash="-") for i in range(1, 26))

    def show(query: str) -> Page:
        with app.test_request_context(f"/?{query}"):
            return requested_page(select(User), User.id)

    return show


def test_pages_show_every_row_once_in_both_directions(show: Show) -> None:
    def numbers(query: str) -> tuple[list[int], bool, bool]:
        page = show(query)
        return [user.id for user in page.rows], page.has_newer, page.has_older

    newest, middle, oldest = list(range(25, 15, -1)), list(range(15, 5, -1)), list(range(5, 0, -1))
    assert numbers("") == numbers("after=15") == (newest, False, True)
    assert numbers("before=16") == numbers("after=5") == (middle, True, True)
    assert numbers("before=6") == (oldest, True, False)


def test_a_query_made_by_hand_does_no_harm(show: Show) -> None:
    first = {
        "before=abc": 25,
        "before=": 25,
        "after=-1": 10,
        f"before={HUGE}": 25,
        f"after=-{HUGE}": 10,
        "before=3&after=20": 25,
        "before=3%20OR%201=1": 25,
    }
    assert {query: show(query).rows[0].id for query in first} == first
    for query in ("before=-1", f"before=-{HUGE}", f"after={HUGE}"):
        assert show(query) == ([], False, False)
