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
    ("field", "answers"),
    [
        ("username", {" Ada_1815 ": "ada_1815", "0-0": "0-0", "a" * 30: "a" * 30}),
        ("email", {" Ada@Example.org ": "Ada@Example.org", "a" * 248 + "@b.org": "a" * 248 + "@b.org"}),
        ("password", {"x" * 12: "x" * 12, " zwölf Zeichen ": " zwölf Zeichen ", "x" * 128: "x" * 128}),
    ],
)
def test_good_answers_are_taken(fill: Fill, field: str, answers: dict[str, str]) -> None:
    forms = {answer: fill({field: answer}) for answer in answers}
    assert [form.errors for form in forms.values() if form.errors] == []
    assert {answer: form[field].data for answer, form in forms.items()} == answers


@pytest.mark.parametrize(
    ("field", "refused"),
    [
        (
            "username",
            {
                "Choose a user name.": ["", "  "],
                # The last but one begins with a Cyrillic letter, to look like another user.
                "3 to 30 letters": ["ab", "a" * 31, "-ada", "ada lovelace", "a/../b", "\u0430da", "ada\x00"],
            },
        ),
        (
            "email",
            {
                "Give your email address.": ["", " "],
                "does not look like": ["ada", "ada@example", "a b@example.org", "a@example.org\nBcc: b@example.org"],
                "at most 254": ["a" * 249 + "@b.org"],
            },
        ),
        (
            "password",
            {
                "Choose a password.": ["", " " * 12],
                "at least 12": ["x" * 11],
                "at most 128": ["x" * 129],
                "something other": ["ada@example.org", "ADA@example.org"],
            },
        ),
    ],
)
def test_bad_answers_are_refused_with_the_reason(fill: Fill, field: str, refused: dict[str, list[str]]) -> None:
    for message, answers in refused.items():
        for answer in answers:
            errors = fill({field: answer}).errors
            assert list(errors) == [field], answer
            assert message in errors[field][0], answer


def test_the_password_is_not_the_user_name_in_any_case(fill: Fill) -> None:
    form = fill({"username": "ada-lovelace", "password": "Ada-Lovelace"})
    assert form.errors == {"password": ["Use something other than your name or address."]}
