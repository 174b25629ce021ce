"""Errors, for people and for programs."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import svcs
from flask import Flask, abort
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import create_app
from app.accounts import User
from app.services import transaction
from config import Settings
from database.migrations import downgrade

JSON = {"Accept": "application/json"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SECRET = "the vault's code is 1815"


@pytest.fixture
def app(app: Flask) -> Flask:
    """The service with pages that fail, and errors answered as they are outside of tests."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/forbidden")
    def forbidden() -> str:
        abort(403, "Not <b>yours</b>.")

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError(SECRET)

    @app.get("/wrong-statement")
    def wrong_statement() -> str:
        svcs.flask.get(Session).execute(text("SELECT * FROM no_such_table"))
        return "never"

    @app.get("/commit-fails")
    def commit_fails() -> str:
        def commit() -> None:
            raise OperationalError("COMMIT", None, Exception("the disk is full"))

        svcs.flask.get(Session).commit = commit  # type: ignore[method-assign]
        return "not kept"

    return app


def lose_database(app: Flask, settings: Settings) -> None:
    with app.app_context():
        svcs.flask.get(Engine).dispose()
    shutil.rmtree(settings.app_dir.data)


ERRORS = [("/nowhere", 404), ("/livez", 405), ("/forbidden", 403), ("/broken", 500), ("/commit-fails", 503)]


@pytest.mark.parametrize("headers", [BROWSER, {"Accept": "*/*"}, {}])
@pytest.mark.parametrize(("path", "status"), ERRORS)
def test_people_get_a_page(client: Any, path: str, status: int, headers: dict[str, str]) -> None:
    response = client.open(path, method="PUT" if status == 405 else "GET", headers=headers)
    assert response.status_code == status
    assert response.content_type == "text/html; charset=utf-8"
    assert f'aria-hidden="true">{status}</p>' in response.text
    assert "Back to the front page" in response.text
