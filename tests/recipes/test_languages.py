"""The login page is in the language that the browser asks for."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse
from wtforms import IntegerField, StringField
from wtforms.validators import InputRequired

from app.accounts import User
from app.forms import Form
from app.languages import _
from app.services import transaction
from config import ROOT

ENGLISH = ["Log in", "User name", "Password", "Forgot your password?", "No account yet?", "Register"]
GERMAN = ["Anmelden", "Benutzername", "Passwort", "Passwort vergessen?", "Noch kein Konto?", "Registrieren"]


class Order(Form):
    name = StringField(validators=[InputRequired()])
    number = IntegerField()


def speaking(app: Flask, language: str) -> Any:
    client = app.test_client()
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = language
    return client


def texts(page: TestResponse) -> str:
    return re.sub(r"<[^>]*>", " ", page.text)


@pytest.mark.parametrize("wanted", ["de", "de-AT,de;q=0.9,en;q=0.8", "fr, de;q=0.5", "DE"])
def test_who_prefers_german_gets_it(app: Flask, wanted: str, page_problems: Callable[..., list[str]]) -> None:
    page = speaking(app, wanted).get("/login")
    assert '<html lang="de">' in page.text
    assert [text for text in GERMAN if text not in texts(page)] == []
    assert [text for text in ENGLISH if text in texts(page)] == []
    assert "<title>Anmelden ·" in page.text
    assert page_problems(page) == []
    assert '<html lang="en">' in speaking(app, wanted).get("/nowhere").text


@pytest.mark.parametrize("wanted", ["", "en-GB", "en, de;q=0.9", "fr", "*"])
def test_others_get_english(app: Flask, wanted: str) -> None:
    page = speaking(app, wanted).get("/login")
    assert '<html lang="en">' in page.text
    assert [text for text in ENGLISH if text not in texts(page)] == []
    assert "Anmelden" not in page.text


def test_messages_of_the_form_and_its_view_are_german(app: Flask, user: User) -> None:
    client = speaking(app, "de")
    empty = client.log_in("", "")
    assert empty.status_code == 422
    assert "Gib deinen Benutzernamen an." in empty.text
    assert "Gib dein Passwort an." in empty.text
    assert "Benutzername oder Passwort ist falsch." in client.log_in("ada", "wrong").text
    assert client.log_in("ada").status_code == 302
    assert "User name or password is wrong." in speaking(app, "en").log_in("ada", "wrong").text


def test_messages_of_wtforms_are_german(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = False

    def messages(language: str) -> list[str]:
        data, headers = {"name": "", "number": "x"}, {"Accept-Language": language}
        with app.test_request_context(method="POST", data=data, headers=headers):
            form = Order()
            assert not form.validate()
            return [message for errors in form.errors.values() for message in errors]

    assert messages("en") == ["This field is required.", "Not a valid integer value."]
    required, number = messages("de")
    assert "Feld" in required
    assert "Zahl" in number or "ganzzahlig" in number


def test_jobs_use_the_first_language(app: Flask) -> None:
    with transaction(app):
        assert str(_("Log in")) == "Log in"


def test_the_catalogue_is_whole() -> None:
    catalogue = (ROOT / "app/translations/de/LC_MESSAGES/messages.po").read_text()
    assert "fuzzy" not in catalogue
    assert 'msgstr ""\n\n' not in catalogue
    assert "app/accounts/forms.py" in catalogue
