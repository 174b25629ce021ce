"""What tokens cannot do, and what becomes of them."""

from typing import Any

from flask import Flask

from app.accounts import User
from app.api.models import Token, new_token
from app.services import transaction


def test_nobody_ends_the_token_of_another(app: Flask, token: str, other_user: User) -> None:
    client: Any = app.test_client()
    client.log_in(other_user.username)
    assert client.submit("/tokens/1/end", page="/logout").status_code == 404
    with transaction(app) as session:
        assert session.get(Token, 1)


def test_a_cookie_alone_changes_nothing_and_a_token_opens_no_page(app: Flask, api: Any, logged_in: Any) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/v1/")]
    assert rules
    for rule in rules:
        address = rule.rule.replace("<int:post_id>", "1")
        for method in (rule.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}:
            answer = logged_in.open(address, method=method, json={"title": "t", "body": "b"})
            assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert api.get("/tokens/new").status_code == 302


def test_an_account_has_so_many_tokens(app: Flask, user: User, logged_in: Any) -> None:
    with transaction(app):
        for _ in range(20):
            new_token(user, "one of many", "read", 1)
    fields = {"name": "one more", "days": "30"}
    for wrong in ({"days": "0"}, {"days": "x"}, {"days": ""}, {"name": " "}):
        assert logged_in.submit("/tokens/new", {**fields, **wrong}).status_code == 422
    assert logged_in.submit("/tokens/new", fields).status_code == 403
