"""What a profile shows, and to whom."""

from typing import Any

import pytest
from flask import Flask

from app.accounts import User
from app.services import transaction


def test_everybody_sees_the_name_and_only_its_owner_the_address(
    app: Flask, logged_in: Any, user: User, other_user: User
) -> None:
    assert user.email in logged_in.get("/profile/ada").text
    assert other_user.email not in logged_in.get("/profile/grace").text
    page = app.test_client().get("/profile/ADA").text
    assert "<h1>ada</h1>" in page
    assert user.email not in page


def test_an_unknown_name_is_not_found_and_not_run(client: Any) -> None:
    for name in ("nobody", "<script>1", "a%00b", "%2e%2e%2fetc", "x" * 1000):
        response = client.get(f"/profile/{name}")
        assert response.status_code == 404
        assert "<script>" not in response.text


def test_names_are_escaped(app: Flask, client: Any) -> None:
    with transaction(app) as session:
        session.add(User(username="<i>bob", email="bob@example.org", password_hash="-"))
    page = client.get("/profile/<i>bob").text
    assert "<h1>&lt;i&gt;bob</h1>" in page
    assert "<i>" not in page


@pytest.mark.parametrize(
    ("username", "initials"),
    [("grace-hopper", "GH"), ("ada", "A"), ("a_b-c", "AB"), ("x--y", "XY"), ("0-0", "00"), ("abc-", "A"), ("a__", "A")],
)
def test_users_without_a_picture_have_initials(username: str, initials: str) -> None:
    assert User(username=username).initials == initials
