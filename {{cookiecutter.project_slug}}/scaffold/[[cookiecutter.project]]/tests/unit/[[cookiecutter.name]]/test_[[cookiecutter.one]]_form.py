"""What the form of [[ cookiecutter.things ]] takes."""

import pytest
from flask import Flask
from werkzeug.datastructures import MultiDict

from app.[[ cookiecutter.name ]].forms import [[ cookiecutter.model ]]Form


@pytest.mark.parametrize(
    ("title", "notes", "mistakes"),
    [
        ("Engines", "", {}),
        ("x" * 200, "x" * 2_000, {}),
        ("  ", "", {"title": ["Give a title."]}),
        ("x" * 201, "x" * 2_001, {"title": ["Use at most 200 characters."], "notes": ["Use at most 2,000 characters."]}),
    ],
)
def test_titles_and_notes_have_a_length(app: Flask, title: str, notes: str, mistakes: dict[str, list[str]]) -> None:
    with app.test_request_context():
        form = [[ cookiecutter.model ]]Form(MultiDict({"title": title, "notes": notes}), meta={"csrf": False})
        assert form.validate() == (not mistakes)
        assert form.errors == mistakes
