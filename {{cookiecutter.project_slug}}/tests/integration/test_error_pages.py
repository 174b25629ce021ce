"""Errors, for people and for programs."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import svcs
from flask import Flask, abort, flash, make_response
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

import storage
from app.accounts import User
from config import Settings

ERRORS = {"/forbidden": 403, "/nowhere": 404, "/posted-only": 405, "/broken": 500}


@pytest.fixture
def app(app: Flask) -> Flask:
    """The service with pages that fail, and with errors answered as they are outside of tests."""
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/forbidden")
    def forbidden() -> str:
        abort(403, "Not <b>yours</b>.")

    @app.post("/posted-only")
    def posted_only() -> str:
        return "never"

    @app.get("/own-answer")
    def own_answer() -> str:
        abort(418, response=make_response("I am a teapot.", 418))

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("the code of the vault is 1815")

    @app.get("/wrong-statement")
    def wrong_statement() -> str:
        svcs.flask.get(Session).execute(text("SELECT nothing FROM user_account"))
        return "never"

    @app.get("/too-big")
    def too_big() -> str:
        svcs.flask.get(Session).execute(text("SELECT zeroblob(2000000000)"))
        return "never"

    @app.post("/twins")
    def twins() -> str:
        session = svcs.flask.get(Session)
        session.add_all(User(username="twin", email="-", password_hash="-") for _ in range(2))
        session.flush()
        return "never"

    @app.post("/commit-fails")
    def commit_fails() -> str:
        def commit() -> None:
            raise OperationalError("COMMIT", None, Exception("the disk is full"))

        svcs.flask.get(Session).commit = commit  # type: ignore[method-assign]
        flash("It is done.")
        return "never"

    return app


@pytest.fixture
def engine(app: Flask) -> Engine:
    with app.app_context():
        return svcs.flask.get(Engine)


def test_people_get_a_page(client: Any, page_problems: Callable[[TestResponse], list[str]]) -> None:
    for path, status in ERRORS.items():
        response = client.get(path)
        assert response.status_code == status
        assert response.content_type == "text/html; charset=utf-8"
        assert "Back to the front page" in response.text
        assert page_problems(response) == []


def test_programs_get_a_problem_document(client: Any) -> None:
    for path, status in ERRORS.items():
        response = client.get(path, headers={"Accept": "application/json"})
        assert response.status_code == status
        assert response.content_type == "application/problem+json"
        assert response.json.keys() == {"type", "title", "status", "detail"}
        assert response.json["status"] == status


def test_the_client_chooses_between_page_and_document(client: Any) -> None:
    wanted = {
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html",
        "*/*": "text/html",
        "image/png": "text/html",
        "application/json, text/plain, */*": "application/problem+json",
        "text/html;q=0.5, application/json": "application/problem+json",
    }
    got = {accept: client.get("/nowhere", headers={"Accept": accept}).mimetype for accept in wanted}
    assert got == wanted


def test_an_error_keeps_its_own_headers(client: Any) -> None:
    assert set(client.get("/posted-only").headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


def test_an_error_that_brings_its_answer_gets_no_other(client: Any) -> None:
    response = client.get("/own-answer")
    assert (response.status_code, response.text) == (418, "I am a teapot.")


def test_an_explanation_is_escaped(client: Any) -> None:
    assert "Not &lt;b&gt;yours&lt;/b&gt;." in client.get("/forbidden").text


@pytest.mark.parametrize("path", ["/broken", "/wrong-statement"])
def test_a_mistake_in_the_code_shows_no_details(client: Any, path: str) -> None:
    for accept in ("text/html", "application/json"):
        response = client.get(path, headers={"Accept": accept})
        assert response.status_code == 500
        for detail in ("1815", "RuntimeError", "Traceback", "SELECT", "user_account"):
            assert detail not in response.text


def test_nobody_is_told_of_a_success_that_was_undone(client: Any) -> None:
    assert client.submit("/commit-fails", page="/login").status_code == 503
    assert "It is done." not in client.get("/login").text


def test_a_value_that_the_database_cannot_hold_is_the_clients_fault(client: Any) -> None:
    assert client.get("/too-big").status_code == 400


def test_a_database_that_is_gone_is_a_passing_trouble(client: Any, engine: Engine, settings: Settings) -> None:
    engine.dispose()
    shutil.rmtree(settings.app_dir.data)
    response = client.get("/profile/ada")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "The database cannot be reached." in response.text


def test_who_is_logged_in_gets_error_pages_without_the_database_too(
    logged_in: Any, engine: Engine, settings: Settings
) -> None:
    engine.dispose()
    shutil.rmtree(settings.app_dir.data)
    for path, status in {"/profile/ada": 503, "/login": 503, "/nowhere": 503, "/broken": 500}.items():
        response = logged_in.get(path)
        assert response.status_code == status
        assert "Back to the front page" in response.text


def test_a_failed_statement_does_not_fail_the_error_page_too(logged_in: Any) -> None:
    response = logged_in.submit("/twins", page="/logout")
    assert response.status_code == 500
    assert "Back to the front page" in response.text


def test_a_request_that_gets_no_connection_gives_up_in_time(make_app: Callable[..., Flask]) -> None:
    app = make_app(APP_WEB__THREADS="1", APP_QUEUE__THREADS="1", APP_DATABASE__TIMEOUT="0.05")
    with app.app_context():
        engine = svcs.flask.get(Engine)
    with engine.connect(), engine.connect():
        assert app.test_client().get("/profile/ada").status_code == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (storage.NotFound("a: no such file"), 404),
        (storage.InvalidPath("../a: no"), 404),
        (storage.PermissionDenied("a: the key of the bucket"), 503),
        (storage.StorageError("a: the key of the bucket"), 503),
    ],
    ids=lambda value: getattr(type(value), "__name__", None),
)
def test_a_storage_that_refuses_is_told_by_the_status_and_not_in_its_words(
    app: Flask, client: Any, error: Exception, status: int
) -> None:
    @app.get("/file")
    def file() -> str:
        raise error

    response = client.get("/file")

    assert response.status_code == status
    assert str(error) not in response.text
    assert ("Retry-After" in response.headers) == (status == 503)
