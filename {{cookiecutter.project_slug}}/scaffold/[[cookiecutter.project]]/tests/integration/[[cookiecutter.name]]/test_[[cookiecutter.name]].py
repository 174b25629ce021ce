"""Listing, writing and deleting [[ cookiecutter.things ]]."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from app.accounts import User
from app.[[ cookiecutter.name ]] import [[ cookiecutter.model ]], remove_archived_[[ cookiecutter.name ]]
from app.services import transaction
from database import utc_now

Add = Callable[..., int]
Problems = Callable[..., list[str]]


@pytest.fixture
def add(app: Flask) -> Add:
    """Stores a row of a user and returns its number."""

    def add(owner: User, title: str, **values: Any) -> int:
        with transaction(app) as session:
            row = [[ cookiecutter.model ]](owner_id=owner.id, title=title, **{"notes": "", **values})
            session.add(row)
            session.flush()
            return row.id

    return add


def titles(page: TestResponse) -> list[str]:
    return re.findall(r'<a href="/[[ cookiecutter.name ]]/\d+/edit">([^<]*)</a>', page.text)


def stored(app: Flask) -> list[str]:
    with transaction(app) as session:
        return list(session.scalars(select([[ cookiecutter.model ]].title).order_by([[ cookiecutter.model ]].id)))


def test_one_has_to_log_in(client: Any) -> None:
    for path in ("", "/new", "/1/edit"):
        assert client.get(f"/[[ cookiecutter.name ]]{path}").location == "/login", path


def test_users_list_and_open_their_own_alone(logged_in: Any, user: User, other_user: User, add: Add) -> None:
    assert "There is nothing here yet." in logged_in.get("/[[ cookiecutter.name ]]").text
    add(user, "Mine")
    other = add(other_user, "Another's")
    assert titles(logged_in.get("/[[ cookiecutter.name ]]")) == ["Mine"]
    assert logged_in.get(f"/[[ cookiecutter.name ]]/{other}/edit").status_code == 404
    for action in ("edit", "delete"):
        path = f"/[[ cookiecutter.name ]]/{other}/{action}"
        assert logged_in.submit(path, {"title": "Taken"}, page="/[[ cookiecutter.name ]]/new").status_code == 404


def test_pages_keep_what_is_searched_for(logged_in: Any, user: User, add: Add) -> None:
    for number in range(12):
        add(user, f"Engine {number}")
    add(user, "Loom", notes="100% of an ENGINE")
    add(user, "Needle")
    first = logged_in.get("/[[ cookiecutter.name ]]?q=engine")
    assert titles(first) == ["Loom", *(f"Engine {number}" for number in range(11, 2, -1))]
    older = re.search('rel="next" href="([^"]+)"', first.text)
    assert older
    assert titles(logged_in.get(older[1].replace("&amp;", "&"))) == ["Engine 2", "Engine 1", "Engine 0"]
    assert titles(logged_in.get("/[[ cookiecutter.name ]]?q=0%25")) == ["Loom"]
    assert "Nothing found." in logged_in.get("/[[ cookiecutter.name ]]?q=nowhere").text


def test_one_is_written_changed_archived_and_deleted(app: Flask, logged_in: Any, user: User) -> None:
    assert logged_in.submit("/[[ cookiecutter.name ]]/new", {"title": "First"}).location == "/[[ cookiecutter.name ]]"
    assert "Saved." in logged_in.get("/[[ cookiecutter.name ]]").text
    changed = logged_in.submit("/[[ cookiecutter.name ]]/1/edit", {"title": "<b>Better</b>", "archived": "y"})
    assert changed.location == "/[[ cookiecutter.name ]]"
    page = logged_in.get("/[[ cookiecutter.name ]]")
    assert titles(page) == ["&lt;b&gt;Better&lt;/b&gt;"]
    assert "archived" in page.text
    logged_in.submit("/[[ cookiecutter.name ]]/1/edit", {"title": "Better"})
    assert "archived" not in logged_in.get("/[[ cookiecutter.name ]]").text
    logged_in.submit("/[[ cookiecutter.name ]]/1/delete", page="/[[ cookiecutter.name ]]/1/edit")
    assert stored(app) == []


def test_a_mistake_is_told_and_nothing_stored(app: Flask, logged_in: Any, user: User, add: Add) -> None:
    add(user, "First")
    for path in ("/[[ cookiecutter.name ]]/new", "/[[ cookiecutter.name ]]/1/edit"):
        response = logged_in.submit(path, {"title": "", "notes": "kept"})
        assert response.status_code == 422
        assert "Give a title." in response.text
        assert "kept" in response.text
    assert stored(app) == ["First"]


def test_an_account_may_have_only_so_many(make_app: Callable[..., Flask], user: User) -> None:
    app = make_app(APP_[[ cookiecutter.name.upper() ]]__MOST="1")
    client: Any = app.test_client()
    client.log_in("ada")
    for title, status in (("First", 302), ("Second", 403)):
        assert client.submit("/[[ cookiecutter.name ]]/new", {"title": title}).status_code == status
    assert stored(app) == ["First"]


def test_the_long_archived_are_deleted(app: Flask, user: User, add: Add, work: Callable[..., int]) -> None:
    for days in (89, 91):
        add(user, f"for {days} days", archived=utc_now() - timedelta(days=days))
    add(user, "not archived")
    remove_archived_[[ cookiecutter.name ]].send("2026-11-30T03:45:00+00:00")
    assert work() == 0
    assert stored(app) == ["for 89 days", "not archived"]


def test_pages_have_their_landmarks_and_labels(logged_in: Any, user: User, add: Add, page_problems: Problems) -> None:
    for number in range(11):
        add(user, f"Title {number}", archived=utc_now())
    paths = ("", "?q=title", "?q=nothing", "/new", "/1/edit")
    for path in paths:
        assert page_problems(logged_in.get(f"/[[ cookiecutter.name ]]{path}")) == [], path
