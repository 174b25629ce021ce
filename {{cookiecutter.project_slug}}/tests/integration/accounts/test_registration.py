"""Creating an account."""

import threading
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from app.accounts import User
from app.services import transaction

ADA = {"username": "ada", "email": "ada@example.org", "password": "correct horse battery"}


def accounts(app: Flask) -> list[User]:
    with transaction(app) as session:
        return list(session.scalars(select(User)))


def test_a_new_user_is_stored_logged_in_and_welcomed(app: Flask, client: Any) -> None:
    response = client.submit("/register", ADA)
    assert (response.status_code, response.location) == (302, "/")
    assert "Welcome, ada." in client.get("/").text
    assert "ada@example.org" in client.get("/profile/ada").text
    [user] = accounts(app)
    assert (user.username, user.email) == ("ada", "ada@example.org")
    assert user.password_hash.startswith("$argon2id$")
    for path in ("/register", "/login"):
        assert client.get(path).location == "/"


def test_a_refused_form_keeps_what_was_typed_except_the_password(app: Flask, client: Any) -> None:
    response = client.submit("/register", {**ADA, "email": "<b>not an address", "password": "correct horse"})
    assert response.status_code == 422
    assert 'value="&lt;b&gt;not an address"' in response.text
    assert 'value="ada"' in response.text
    assert "correct horse" not in response.text
    assert accounts(app) == []


def test_a_taken_name_is_refused_in_any_case(app: Flask, client: Any, user: User) -> None:
    response = client.submit("/register", {**ADA, "username": "ADA", "email": "other@example.org"})
    assert response.status_code == 422
    assert "This name is taken." in response.text
    assert [account.email for account in accounts(app)] == [user.email]


def test_of_two_who_want_a_name_at_once_one_gets_it(app: Flask) -> None:
    browsers: list[Any] = [app.test_client(), app.test_client()]
    ready = threading.Barrier(2)
    statuses = []

    def register(browser: Any) -> None:
        browser.get("/register")
        ready.wait(timeout=20)
        statuses.append(browser.submit("/register", ADA).status_code)

    threads = [threading.Thread(target=register, args=[browser]) for browser in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [302, 422]
    assert len(accounts(app)) == 1


@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_form_from_elsewhere_is_refused(app: Flask, client: Any, path: str) -> None:
    client.get(path)
    for token in ({}, {"csrf_token": "forged"}):
        response = client.post(path, data={**ADA, **token})
        assert response.status_code == 400
        assert "CSRF" in response.text
    assert accounts(app) == []
