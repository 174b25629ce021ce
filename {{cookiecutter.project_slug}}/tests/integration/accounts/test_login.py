"""Logging in and out, and the session between."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.accounts import User
from app.services import transaction
from config import Settings
from database import utc_now
from tests.conftest import PASSWORD

EVIL = "https://evil.example/"


def is_logged_in(client: Any) -> bool:
    return bool(client.get("/logout").status_code == 200)


def test_name_and_password_log_in(client: Any, user: User) -> None:
    response = client.log_in(" ADA ")
    assert (response.status_code, response.location) == (302, "/")
    assert 'href="/profile/ada"' in client.get("/").text


def test_a_wrong_password_and_an_unknown_name_look_the_same(client: Any, user: User) -> None:
    def answer(name: str) -> tuple[int, str]:
        response: TestResponse = client.log_in(name, "wrong")
        return response.status_code, re.sub(r'value="[^"]*"', "", response.text)

    known = answer("ada")
    assert known == answer("bob")
    assert known[0] == 422
    assert "User name or password is wrong." in known[1]
    assert not is_logged_in(client)


def test_an_empty_form_says_what_is_missing(client: Any) -> None:
    response = client.log_in("", "")
    assert response.status_code == 422
    assert "Give your user name." in response.text
    assert "Give your password." in response.text


def test_nothing_of_the_session_before_login_is_left_after_it(client: Any, user: User) -> None:
    client.get("/login")
    with client.session_transaction() as session:
        session["planted"] = "by an attacker"
        token = session["csrf_token"]
    client.log_in("ada")
    client.get("/logout")
    with client.session_transaction() as session:
        assert "planted" not in session
        assert session["csrf_token"] != token


def test_a_page_that_asks_for_login_is_shown_after_it_once(client: Any, user: User) -> None:
    asked = client.get("/logout?sure=1")
    assert (asked.status_code, asked.location) == (302, "/login")
    assert "Please log in first." in client.get("/login").text
    assert client.log_in("ada").location == "/logout?sure=1"
    client.submit("/logout")
    # Neither a form that was sent without login nor an address decides what is shown.
    assert client.submit("/logout", page="/login").location == "/login"
    fields = {"username": "ada", "password": PASSWORD, "next": EVIL}
    assert client.submit(f"/login?next={EVIL}", fields).location == "/"


def test_a_program_is_told_to_log_in_by_status(client: Any) -> None:
    response = client.get("/logout", headers={"Accept": "application/json"})
    assert response.status_code == 401
    assert response.content_type == "application/problem+json"


def test_only_the_form_ends_the_session(logged_in: Any) -> None:
    assert "Log out?" in logged_in.get("/logout").text
    assert logged_in.post("/logout").status_code == 400
    assert is_logged_in(logged_in)
    assert logged_in.submit("/logout").location == "/"
    assert "You are logged out." in logged_in.get("/login").text
    assert not is_logged_in(logged_in)


def test_a_copied_cookie_is_worthless_after_logout(app: Flask, logged_in: Any, settings: Settings) -> None:
    thief: Any = app.test_client()
    thief.set_cookie(settings.app.slug, logged_in.get_cookie(settings.app.slug).value)
    assert is_logged_in(thief)
    logged_in.submit("/logout")
    assert not is_logged_in(thief)


def test_the_session_of_a_deleted_account_opens_no_other(app: Flask, logged_in: Any, user: User) -> None:
    with transaction(app) as session:
        session.delete(user)
    assert not is_logged_in(logged_in)
    # The next account may get the row's number.
    with transaction(app) as session:
        session.add(User(username="grace", email="-", password_hash="-"))
    assert not is_logged_in(logged_in)


@pytest.mark.parametrize(("secure", "prefix"), [("false", ""), ("true", "__Host-")])
def test_the_cookie_is_hardened_and_lasts_as_long_as_the_settings_say(
    make_app: Callable[..., Flask], settings: Settings, user: User, secure: str, prefix: str
) -> None:
    client: Any = make_app(APP_SECURITY__COOKIE_SECURE=secure, APP_SECURITY__SESSION_LIFETIME="3600").test_client()
    cookie, *flags = client.get("/login", base_url="https://localhost").headers["Set-Cookie"].split("; ")
    assert cookie.startswith(f"{prefix}{settings.app.slug}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(flags)
    assert ("Secure" in flags) is (secure == "true")
    assert not any(flag.startswith("Domain") for flag in flags)
    if secure == "false":
        client.log_in("ada")
        left = client.get_cookie(settings.app.slug).expires - utc_now()
        assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_a_form_may_be_filled_in_slowly(client: Any, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get("/login").text)
    assert token
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    fields = {"csrf_token": token[1], "username": "ada", "password": PASSWORD}
    assert client.post("/login", data=fields).status_code == 302


def test_login_renews_a_hash_when_the_cost_has_changed(make_app: Callable[..., Flask], user: User) -> None:
    app = make_app(APP_SECURITY__ARGON2__TIME_COST="2")
    client: Any = app.test_client()
    assert client.log_in("ada").status_code == 302
    with transaction(app) as session:
        assert ",t=2," in session.get_one(User, user.id).password_hash
    client.submit("/logout")
    assert client.log_in("ada").status_code == 302
