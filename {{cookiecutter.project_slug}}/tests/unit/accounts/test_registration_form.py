"""Which answers the registration form accepts, and what it says of the others."""

from collections.abc import Callable

import pytest
from flask import Flask

from app.accounts.forms import RegisterForm

Fill = Callable[..., RegisterForm]


@pytest.fixture
def fill(app: Flask) -> Fill:
    """Fills in a form that is right but for the given fields, and checks it."""
    right = {"username": "ada", "email": "ada@example.org", "password": "correct horse battery"}

    def fill(**fields: str) -> RegisterForm:
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
        ("password", {answer: answer for answer in ("m4vkq7wxpl2z", " zwölf Zeichen ", "good for long " * 9)}),
    ],
)
def test_good_answers_are_accepted(fill: Fill, field: str, answers: dict[str, str]) -> None:
    for answer, data in answers.items():
        form = fill(**{field: answer})
        assert (form.errors, form[field].data) == ({}, data)


@pytest.mark.parametrize(
    ("field", "message", "answers"),
    [
        ("username", "Choose a user name.", ["", "  "]),
        # The last but one begins with a Cyrillic letter, to look like another user's.
        ("username", "at most 30", ["a" * 31]),
        ("username", "3 to 30 letters", ["ab", "-ada", "ada lovelace", "a/../b", "\u0430da", "ada\x00"]),
        ("email", "Give your email address.", ["", " "]),
        ("email", "does not look like", ["ada", "ada@example", "a b@example.org", "a@example.org\nBcc: b@example.org"]),
        ("email", "at most 254", ["a" * 249 + "@b.org"]),
        ("password", "Choose a password.", ["", " " * 12]),
        ("password", "at least 12", ["x" * 11]),
        ("password", "at most 128", ["x" * 129]),
        ("password", "common password", ["password1234", "qwertyuiop12", "a" * 128, "ada@example.org", "Adaadaadaada"]),
    ],
)
def test_bad_answers_are_refused_with_the_reason(fill: Fill, field: str, message: str, answers: list[str]) -> None:
    for answer in answers:
        errors = fill(**{field: answer}).errors
        assert list(errors) == [field], answer
        assert message in errors[field][0], answer
