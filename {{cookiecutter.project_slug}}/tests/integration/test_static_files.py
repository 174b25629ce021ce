"""Which addresses static files have, and for how long browsers keep them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

MakeApp = Callable[..., Flask]


def linked(client: Any) -> str:
    """The address of the style sheet, as pages have it."""
    found = re.search(r'href="(/static/style\.css[^"]*)"', client.get("/login").text)
    assert found
    return found[1]


def cached(client: Any, path: str) -> tuple[int | None, bool]:
    """For how many seconds browsers keep a file, and whether they ask first."""
    with client.get(path) as response:
        assert response.status_code == 200
        return response.cache_control.max_age, bool(response.cache_control.no_cache)


def test_pages_link_to_an_address_that_changes_with_the_content_and_may_be_kept(client: Any) -> None:
    address = linked(client)
    assert re.fullmatch(r"/static/style\.css\?v=[0-9a-f]{8}", address)
    assert cached(client, address) == (31_536_000, False)


@pytest.mark.parametrize("query", ["", "?v=", "?v=00000000", "?v=None"])
def test_without_the_right_version_browsers_ask_each_time(client: Any, query: str) -> None:
    assert cached(client, f"/static/style.css{query}") == (None, True)


def test_in_development_they_may_change_at_any_time(make_app: MakeApp) -> None:
    client = make_app(APP_ENV="development").test_client()
    assert linked(client) == "/static/style.css"
    assert cached(client, "/static/style.css") == (None, True)
