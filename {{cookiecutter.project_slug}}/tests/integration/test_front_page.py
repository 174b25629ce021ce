"""The front page of a service that has no feature for it."""

import pytest
import svcs
from flask import Flask

from app import create_app
from config import Settings


def test_it_shows_what_the_service_is_and_where_to_go_on(
    app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("app", "app.pages"):
        monkeypatch.setattr(f"{module}.feature_names", lambda: ["accounts"])
    bare = create_app(settings)

    response = bare.test_client().get("/")

    svcs.flask.close_registry(bare)
    assert response.status_code == 200
    assert f"<h1>{settings.app.name}</h1>" in response.text
    assert 'href="/login"' in response.text
    assert "app/accounts/" in response.text
