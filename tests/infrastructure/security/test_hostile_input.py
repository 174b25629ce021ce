"""Input that no page sends: every answer is a refusal, and costs no more than its size."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict
from wtforms import StringField
from wtforms.validators import DataRequired, Regexp

from app.forms import AtMost, Form
from config import Settings
from database import rate_limits

JSON = [b"[1, 2]", b'"x"', b"1", b"true", b"null", b"NaN", b"{", b'{"username": 1}', b'{"username": {"a": [1]}}']
JSON += [b'{"username": "\\ud800", "title": null}', b"[" * 3000, b"\xff\xfe", b""]
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="username"'
BODIES = [
    *(("application/json", body) for body in JSON),
    *(
        (FORM, body)
        for body in (b"", b"%", b"username=%ED%A0%80", b"username=%FF&username=%00", b"&" * 3000, b"=" * 99)
    ),
    *(
        (MULTIPART, body)
        for body in (b"", b"--b", b"--b--", PART, PART + b"\r\n\r\n", PART + b"; filename=\r\n\r\na\r\n--b--")
    ),
    *(
        (kind, b"username=a")
        for kind in ("", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "\xff")
    ),
    (f"{FORM}; charset=utf-7", b"username=+AGE-"),
]
SHAPES = [
    "a@" + "." * 450_000 + "@",
    "a" * 900_000,
    "@" * 900_000,
    "a " * 450_000,
    "\u202e" * 300_000,
    "\0" * 900_000,
]


def posts(app: Flask) -> Iterator[str]:
    """An address for each route that takes a form."""
    with app.test_request_context():
        for rule in app.url_map.iter_rules():
            if "POST" in (rule.methods or ()):
                value: Any = "11111111-1111-1111-1111-111111111111" if "uuid" in rule.rule else 1
                values = dict.fromkeys(rule.arguments, value)
                yield app.url_for(rule.endpoint, **values)


@pytest.mark.parametrize("is_logged_in", [False, True])
def test_a_malformed_body_is_never_an_error_of_the_service(
    app: Flask, client: Any, user: Any, monkeypatch: pytest.MonkeyPatch, is_logged_in: bool
) -> None:
    if is_logged_in:
        client.log_in(user.username)
    page = client.get("/logout" if is_logged_in else "/login").text
    token = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
    monkeypatch.setattr(rate_limits, "hit", lambda *_: 0.0)
    for path in posts(app):
        for kind, body in BODIES:
            headers = {"X-CSRFToken": token, "Referer": "http://localhost/"}
            response = client.post(
                path, input_stream=io.BytesIO(body), content_length=len(body), content_type=kind, headers=headers
            )
            assert response.status_code < 500, (path, kind, body)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_host_that_cannot_be_one_is_refused_as_any_other_mistake(
    client: Any, settings: Settings, accept: str
) -> None:
    for host in ("x" * 64, "a..b", "9" * 8000, "x" * 64 + ".example.org:80"):
        response = client.get("/login", headers={"Host": host, "Accept": accept})
        assert response.status_code == 400
        assert settings.security.headers.items() <= dict(response.headers).items()


@pytest.mark.parametrize("form", Form.__subclasses__(), ids=lambda form: form.__name__)
def test_no_check_sees_more_of_a_text_than_its_field_may_hold(
    app: Flask, form: type[Form], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Regexp, "__call__", lambda _self, _form, field: seen.append(len(field.data)))
    with app.test_request_context():
        names = [field.name for field in form(meta={"csrf": False}) if isinstance(field, StringField)]
        for shape in SHAPES:
            filled = form(MultiDict(dict.fromkeys(names, shape)), meta={"csrf": False})
            assert not filled.validate()
            for name in names:
                field = filled[name]
                assert [type(check) for check in field.validators][:2] == [DataRequired, AtMost]
                assert len(field.errors) == 1
    assert seen == []


def test_a_body_that_does_not_end_is_read_no_further_than_an_upload_may_go(make_app: Callable[..., Flask]) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            taken.append(size)
            return b"x" * size

    taken: list[int] = []
    client = make_app(APP_WEB__TRUSTED_PROXIES="1", APP_SECURITY__MAX_UPLOAD_SIZE="1000000").test_client()
    environ = {"wsgi.input": Endless(), "CONTENT_LENGTH": str(10**12)}
    assert client.post("/nowhere", environ_overrides=environ).status_code == 404
    assert 0 < sum(taken) < 1_100_000
