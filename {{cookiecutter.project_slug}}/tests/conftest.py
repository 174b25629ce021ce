"""Fixtures of all tests. Each test has an app folder and a database of its own."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import svcs
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from app import create_app
from app.accounts import User
from app.accounts.passwords import hash_password
from app.services import transaction
from config import AppDir, Settings, load
from database import connect
from database.migrations import upgrade

PASSWORD = "correct horse battery"


class Browser(FlaskClient):
    """A client that fills in forms as a browser does: it opens the page first, and sends its CSRF token back."""

    def submit(self, path: str, fields: dict[str, str] | None = None, *, page: str | None = None) -> TestResponse:
        """Open `page` (`path` itself if not given) and post `fields` to `path`."""
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(page or path).text)
        assert token, f"{page or path} shows no form"
        return self.post(path, data={"csrf_token": token[1], **(fields or {})})

    def log_in(self, username: str, password: str = PASSWORD) -> TestResponse:
        """Log in through the login page."""
        return self.submit("/login", {"username": username, "password": password})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a new installation."""
    folder = AppDir(tmp_path / "app")
    folder.make()
    return load({"APP_ENV": "testing", "APP_DIR": str(folder.path)})


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all migrations, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "app.sqlite3"
    engine = connect(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def app(settings: Settings, migrated_database: Path) -> Iterator[Flask]:
    """The service on a migrated database."""
    shutil.copyfile(migrated_database, settings.app_dir.database)
    app = create_app(settings)
    app.test_client_class = Browser
    yield app
    svcs.flask.close_registry(app)


@pytest.fixture
def client(app: Flask) -> Any:
    """A browser that nobody is logged in on."""
    return app.test_client()


@pytest.fixture
def user(app: Flask, settings: Settings) -> User:
    """An account called ada, whose password is PASSWORD."""
    return add_user(app, settings, "ada")


@pytest.fixture
def other_user(app: Flask, settings: Settings) -> User:
    """An account called grace."""
    return add_user(app, settings, "grace")


@pytest.fixture
def logged_in(client: Browser, user: User) -> Browser:
    """A browser that ada is logged in on."""
    assert client.log_in(user.username).status_code == 302
    return client


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    """A session that is committed at the end of the test."""
    with transaction(app) as session:
        yield session


def add_user(app: Flask, settings: Settings, username: str) -> User:
    """Store an account."""
    with transaction(app) as session:
        password_hash = hash_password(PASSWORD, settings.security.argon2)
        user = User(username=username, email=f"{username}@example.org", password_hash=password_hash)
        session.add(user)
    return user
