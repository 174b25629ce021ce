"""Which names static files have."""

import json
from pathlib import Path

import msgspec
import pytest
import svcs
from flask import Flask

from app import create_app
from config import Settings

STATIC = ("style.css", "style.1a2b3c4d.css", "icon.svg")


@pytest.fixture
def released(settings: Settings, tmp_path: Path) -> Flask:
    """The service as it is in a release that has a hashed copy of the style sheet, and of nothing else."""
    (tmp_path / "static.json").write_text(json.dumps({"style.css": "style.1a2b3c4d.css"}))
    for name in STATIC:
        (tmp_path / name).write_text(name)
    app = create_app(msgspec.structs.replace(settings, root=tmp_path))
    app.static_folder = str(tmp_path)
    svcs.flask.close_registry(app)
    return app


def test_in_a_release_pages_link_to_hashed_names(released: Flask) -> None:
    page = released.test_client().get("/nowhere", headers={"Accept": "text/html"}).text
    assert 'href="/static/style.1a2b3c4d.css"' in page
    assert 'href="/static/icon.svg"' in page


def test_browsers_keep_hashed_files_and_ask_for_the_others(released: Flask) -> None:
    ages = {}
    for name in STATIC:
        with released.test_client().get(f"/static/{name}") as response:
            assert response.get_data(as_text=True) == name
            ages[name] = (response.cache_control.max_age, bool(response.cache_control.no_cache))
    assert ages == {"style.css": (None, True), "style.1a2b3c4d.css": (31536000, False), "icon.svg": (None, True)}


def test_elsewhere_names_stay_as_they_are(app: Flask) -> None:
    response = app.test_client().get("/nowhere", headers={"Accept": "text/html"})
    assert 'href="/static/style.css"' in response.text
