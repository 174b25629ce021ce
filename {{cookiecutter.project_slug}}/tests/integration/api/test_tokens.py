"""Tokens: who may make and end them, and what they open."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask_login import current_user
from msgspec import Struct
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from app.accounts import User
from app.api import api_blueprint, operation
from app.api.models import Token
from app.services import transaction
from database import utc_now


class Said(Struct, forbid_unknown_fields=True):
    text: str


@pytest.fixture
def app(app: Flask) -> Flask:
    """The service with an operation, which says who has called it."""
    probe = api_blueprint("probe", __name__)

    @probe.route("", methods=["GET", "POST"])
    @operation(answer=Said)
    def say() -> Said:
        return Said(current_user.username)

    app.register_blueprint(probe)
    return app


def call(app: Flask, text: str, method: str = "GET", **options: Any) -> TestResponse:
    headers = {"Authorization": f"Bearer {text}", **options.pop("headers", {})}
    return app.test_client().open("/api/v1/probe", method=method, headers=headers, **options)


@pytest.fixture
def made(logged_in: Any) -> str:
    """The text of a token that ada has made to read with."""
    page = logged_in.submit("/tokens/new", {"name": "my <b>script", "days": "30"})
    [text] = re.findall(r"<code>(\w+_[\w-]{43})</code>", page.text)
    return str(text)


def test_a_token_is_shown_once_and_stands_for_its_owner(
    app: Flask, logged_in: Any, made: str, page_problems: Callable[[TestResponse], list[str]]
) -> None:
    profile = logged_in.get("/profile/ada")
    assert "my &lt;b&gt;script" in profile.text
    assert made not in profile.text
    assert page_problems(profile) == []
    assert "my &lt;b&gt;script" not in app.test_client().get("/profile/ada").text
    with transaction(app) as session:
        assert made not in str(session.scalars(select(Token)).one().__dict__)
    assert call(app, made).json == {"text": "ada"}


def test_operations_are_described(app: Flask, page_problems: Callable[[TestResponse], list[str]]) -> None:
    client: Any = app.test_client()
    document = client.get("/api/openapi.json").json
    assert document["paths"]["/api/v1/probe"].keys() == {"get", "post"}
    assert {"Problem", "Said"} <= document["components"]["schemas"].keys()
    assert "Paging" not in document["components"]["schemas"]
    assert page_problems(client.get("/api/docs")) == []


def test_a_token_does_what_its_scope_says_until_it_is_ended(app: Flask, logged_in: Any, made: str) -> None:
    refused = call(app, made, "POST")
    assert (refused.status_code, refused.mimetype) == (403, "application/problem+json")
    assert logged_in.submit("/tokens/1/end", page="/profile/ada").status_code == 302
    assert call(app, made).status_code == 401


def test_without_a_token_that_runs_nobody_is_let_in(app: Flask, logged_in: Any, made: str) -> None:
    with transaction(app) as session:
        session.execute(update(Token).values(ends=utc_now() - timedelta(seconds=1)))
    answers = [call(app, text) for text in (made, "", "x", made[:-1], "\xff")]
    answers += [app.test_client().get("/api/v1/probe"), call(app, "", headers={"Authorization": "Basic YTpi"})]
    answers += [logged_in.get("/api/v1/probe", headers={"Authorization": wrong}) for wrong in ("Bearer x", "Basic x")]
    assert {(answer.status_code, answer.headers["WWW-Authenticate"]) for answer in answers} == {(401, "Bearer")}


def test_a_page_calls_with_its_session_and_its_csrf_token(app: Flask, logged_in: Any) -> None:
    stranger: Any = app.test_client()
    good, wrong = ({"X-CSRFToken": client.csrf_token("/account/forgot")} for client in (logged_in, stranger))
    assert logged_in.get("/api/v1/probe").json == {"text": "ada"}
    assert logged_in.post("/api/v1/probe", headers=good).json == {"text": "ada"}
    referred = ({**good, "Referer": address} for address in ("https://example.org/", ""))
    answers = [logged_in.post("/api/v1/probe", headers=headers) for headers in ({}, wrong)]
    answers += [logged_in.post("/api/v1/probe", headers=it, base_url="https://localhost") for it in referred]
    for answer in answers:
        assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
        assert "CSRF" in answer.json["detail"] or "referrer" in answer.json["detail"]


def test_operators_make_list_and_end_tokens(app: Flask, user: User) -> None:
    run = app.test_cli_runner().invoke
    made = run(args=["token", "add", "Ada", "script", "--scope", "write"]).output.strip()
    assert call(app, made, "POST").status_code == 200
    listed = run(args=["token", "list"]).output
    assert re.search(r"1 +ada +script +write", listed)
    assert made not in listed
    for wrong in (["add", "ada", "s", "--scope", "all"], ["add", "nobody", "s"], ["add", "ada", ""], ["end", "9"]):
        assert run(args=["token", *wrong]).exit_code != 0
    assert run(args=["token", "end", "1"]).exit_code == 0
    assert call(app, made).status_code == 401
