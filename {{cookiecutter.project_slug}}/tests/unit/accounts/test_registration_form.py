"""What the registration form takes and what it refuses."""

from collections.abc import Callable

import pytest
from flask import Flask

from app.accounts.forms import RegisterForm

Fill = Callable[[dict[str, str]], RegisterForm]


@pytest.fixture
def fill(app: Flask) -> Fill:
    """Fills in a form that is right but for the given fields, and checks it."""
    right = {"username": "ada", "email": "ada@example.org", "password": "correct horse battery"}

    def fill(fields: dict[str, str]) -> RegisterForm:
        with app.test_request_context(method="POST", data={**right, **fields}):
            form = RegisterForm(meta={"csrf": False})
            form.validate()
            return form

    return fill


@pytest.mark.parametrize(
    ("field", "text", "stored"),
    [
        ("username", " Ada_1815 ", "ada_1815"),
        ("username", "a" * 30, "a" * 30),
        ("email", " Ada@Example.org ", "Ada@Example.org"),
        ("email", "a" * 248 + "@b.org", "a" * 248 + "@b.org"),
        ("password", "x" * 12, "x" * 12),
        ("password", " zwölf Zeichen ", " zwölf Zeichen "),
        ("password", "x" * 128, "x" * 128),
    ],
)
def test_a_good_answer_is_taken(fill: Fill, field: str, text: str, stored: str) -> None:
    form = fill({field: text})
    assert form.errors == {}
    assert form[field].data == stored


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("username", "", "Choose a user name."),
        ("username", "  ", "Choose a user name."),
        ("username", "ab", "3 to 30 letters"),
        ("username", "a" * 31, "3 to 30 letters"),
        ("username", "-ada", "3 to 30 letters"),
        ("username", "ada lovelace", "3 to 30 letters"),
        ("username", "ada/../grace", "3 to 30 letters"),
        ("username", "аda", "3 to 30 letters"),  # noqa: RUF001  (the first letter is Cyrillic, to look like another user)
        ("email", "", "Give your email address."),
        ("email", "ada", "does not look like"),
        ("email", "ada@example", "does not look like"),
        ("email", "ada@example.org\nBcc: all@example.org", "does not look like"),
        ("email", "a" * 249 + "@b.org", "at most 254"),
        ("password", "", "Choose a password."),
        ("password", "x" * 11, "at least 12"),
        ("password", "x" * 129, "at most 128"),
        ("password", "ADA@example.org", "something else"),
    ],
)
def test_a_bad_answer_is_refused(fill: Fill, field: str, text: str, message: str) -> None:
    errors = fill({field: text}).errors
    assert list(errors) == [field]
    assert message in errors[field][0]


def test_the_password_is_not_the_user_name_in_any_case(fill: Fill) -> None:
    form = fill({"username": "ada-lovelace", "password": "Ada-Lovelace"})
    assert form.errors == {"password": ["Use something else than your name or address."]}
