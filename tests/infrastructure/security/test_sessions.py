"""Sessions that somebody made, kept or copied. What users do with theirs is tested in the project."""

import json
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from itsdangerous import TimestampSigner, URLSafeTimedSerializer, base64_encode
from sqlalchemy import update

from app.accounts import User
from app.accounts.jobs import remove_old_sessions
from app.accounts.sessions import UserSession, digest
from app.services import transaction
from config import Settings
from database import utc_now
from tests.conftest import PASSWORD

DAY = 86_400


@pytest.fixture
def devices(app: Flask, user: User) -> list[Any]:
    """Two browsers that ada is logged in on, each by her password."""
    browsers: list[Any] = [app.test_client(), app.test_client()]
    for browser in browsers:
        assert browser.log_in("ada").status_code == 302
    return browsers


@pytest.fixture
def holds(app: Flask, settings: Settings) -> Callable[[str], bool]:
    """Whether a cookie is that of somebody who is logged in."""

    def holds(cookie: str) -> bool:
        client = app.test_client()
        client.set_cookie(settings.app.slug, cookie)
        return is_logged_in(client)

    return holds


def is_logged_in(client: Any) -> bool:
    """The page shows what only somebody who is logged in gets; a refusal is a way to the login page."""
    response = client.get("/picture")
    assert response.status_code in (200, 302)
    return bool(response.status_code == 200)


def cookie_of(client: Any, settings: Settings) -> str:
    return str(client.get_cookie(settings.app.slug).value)


def test_a_session_that_was_planted_before_login_is_not_logged_in_by_it(
    client: Any, user: User, settings: Settings, holds: Callable[[str], bool]
) -> None:
    client.get("/picture")
    planted = cookie_of(client, settings)
    client.log_in("ada")
    assert is_logged_in(client)
    assert cookie_of(client, settings) != planted
    assert not holds(planted)


def test_logout_ends_the_session_of_this_device_and_its_copies(
    devices: list[Any], settings: Settings, holds: Callable[[str], bool]
) -> None:
    copies = [cookie_of(device, settings) for device in devices]
    assert [holds(copy) for copy in copies] == [True, True]
    devices[0].submit("/logout")
    assert [is_logged_in(device) for device in devices] == [False, True]
    assert [holds(copy) for copy in copies] == [False, True]


def test_a_new_password_ends_all_sessions(app: Flask, devices: list[Any]) -> None:
    result = app.test_cli_runner().invoke(args=["user", "password", "ada"], input="another horse battery\n")
    assert result.exit_code == 0
    assert [is_logged_in(device) for device in devices] == [False, False]
    assert devices[0].log_in("ada", PASSWORD).status_code == 422
    assert devices[0].log_in("ada", "another horse battery").status_code == 302


def test_rights_that_were_taken_away_are_gone_in_sessions_that_have_begun(
    app: Flask, devices: list[Any], user: User
) -> None:
    for is_admin, status in ((True, 200), (False, 404)):
        with transaction(app) as session:
            session.get_one(User, user.id).is_admin = is_admin
        assert [device.get("/ops").status_code for device in devices] == [status, status]


def test_nobody_makes_a_session_without_the_key(
    app: Flask, devices: list[Any], user: User, settings: Settings, holds: Callable[[str], bool]
) -> None:
    good = cookie_of(devices[0], settings)
    serializer: Any = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    payload, stamp, signature = good.rsplit(".", 2)
    content = serializer.loads(good)
    plain = base64_encode(json.dumps(content)).decode()
    assert holds(serializer.dumps(content)), "this is how the service makes one"
    visitor = serializer.dumps({"csrf_token": "1"}).rsplit(".", 2)
    key = app.secret_key or ""
    made = {
        "nothing": "",
        "unsigned": plain,
        "without a signature": f"{payload}.{stamp}.",
        "without a time": f"{payload}.{signature}",
        "a signature cut short": good[:-1],
        "another signature": f"{good[:-8]}AAAAAAAA",
        "the signature of another session": f"{payload}.{visitor[1]}.{visitor[2]}",
        "another content": f"{plain}.{stamp}.{signature}",
        "a later time": f"{payload}.{base64_encode((int(time.time()) + 60).to_bytes(4, 'big')).decode()}.{signature}",
        "compressed": f".{base64_encode(zlib.compress(json.dumps(content).encode())).decode()}.{stamp}.{signature}",
        "another key": URLSafeTimedSerializer("x" * 43, "cookie-session", signer=TimestampSigner).dumps(content),
        "another purpose": URLSafeTimedSerializer(key, "app.files").dumps(content),
        "the name as a number": serializer.dumps(content | {"_user_id": 1}),
        "what the database holds": serializer.dumps(content | {"_user_id": digest(content["_user_id"])}),
        "the number of the account": serializer.dumps(content | {"_user_id": str(user.id)}),
    }
    assert [name for name, cookie in made.items() if holds(cookie)] == []


def test_a_session_ends_some_time_after_login_however_often_it_is_used(
    make_app: Callable[..., Flask], user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(APP_SECURITY__SESSION_LIFETIME=str(10 * DAY))
    client: Any = app.test_client()
    start = time.time()

    def on_day(days: float) -> bool:
        monkeypatch.setattr(time, "time", lambda: start + days * DAY)
        with transaction(app) as session:
            session.execute(update(UserSession).values(created=utc_now() - timedelta(days=days)))
        return is_logged_in(client)

    client.log_in("ada")
    for day in (1, 5, 9, 9.99):
        assert on_day(day)
        # A message for the next page is kept in the cookie, which is signed again with the time of now.
        client.submit("/picture/remove", page="/picture")
    assert not on_day(10.01)
    client.log_in("ada")
    assert is_logged_in(client)
    monkeypatch.setattr(time, "time", lambda: start + 21 * DAY)
    assert not is_logged_in(client), "a cookie that was not used for as long"
    with transaction(app):
        remove_old_sessions("")
    with transaction(app) as session:
        assert session.query(UserSession).count() == 1
