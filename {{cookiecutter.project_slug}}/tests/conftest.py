"""Fixtures of all tests. Each test has an app folder and a database of its own."""

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import dramatiq
import msgspec
import pytest
import svcs
from alembic import command
from flask import Flask, request
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from app import create_app
from app.accounts import User
from app.accounts.passwords import hash_password
from app.services import transaction
from config import AppDir, Settings, load
from database import connect
from database.base import database_time
from database.broker import DatabaseBroker, QueueMessage
from database.migrations import alembic_config
from storage.disks import Disks

PASSWORD = "correct horse battery"
SECRET = secrets.token_urlsafe(32)


class Browser(FlaskClient):
    """A client that fills in forms as a browser does: it opens the page first, and sends its CSRF token back."""

    def submit(self, path: str, fields: dict[str, str] | None = None, *, page: str | None = None) -> TestResponse:
        """Open `page` (`path` itself if not given) and post `fields` to `path`."""
        return self.post(path, data={"csrf_token": self.csrf_token(page or path), **(fields or {})})

    def csrf_token(self, page: str) -> str:
        """The token in the form of a page, which scripts send as X-CSRFToken."""
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(page).text)
        assert token, f"{page} shows no form"
        return token[1]

    def log_in(self, username: str, password: str = PASSWORD) -> TestResponse:
        """Log in through the login page."""
        return self.submit("/login", {"username": username, "password": password})


class Page(HTMLParser):
    """The tags of a page, to check what every page has to keep to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def problems(self) -> Iterator[str]:
        """A line for each thing that a screen reader or the Content-Security-Policy would stumble over."""
        names = [tag for tag, _ in self.tags]
        for tag in ("header", "main", "footer", "h1", "title"):
            if names.count(tag) != 1:
                yield f"{names.count(tag)} times <{tag}>"
        levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
        for above, below in pairwise(levels):
            if below > above + 1:
                yield f"<h{below}> follows <h{above}>"
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        labelled = [attributes.get("for") for tag, attributes in self.tags if tag == "label"]
        for number in {number for number in ids if not number or ids.count(number) > 1}:
            yield f"id {number!r} is empty or there twice"
        for tag, attributes in self.tags:
            if tag == "html" and not attributes.get("lang"):
                yield "no language"
            if tag in ("input", "textarea", "select") and attributes.get("type") != "hidden":
                if attributes.get("id") not in labelled:
                    yield f"no label for {attributes.get('name')}"
                if attributes.get("aria-invalid", "true") != "true":
                    yield f"neither valid nor invalid: {attributes.get('name')}"
                if "aria-invalid" in attributes and "aria-describedby" not in attributes:
                    yield f"no error tied to {attributes.get('name')}"
            for name in ("aria-describedby", "aria-labelledby"):
                for target in (attributes.get(name) or "").split():
                    if target not in ids:
                        yield f"{name} points to {target}, which is not there"
            inline = [name for name in attributes if name == "style" or name.startswith("on")]
            if inline or tag == "style" or (tag == "script" and "src" not in attributes):
                yield f"inline code: <{tag} {' '.join(inline)}>"


@pytest.fixture
def page_problems() -> Callable[[TestResponse], list[str]]:
    """What is wrong with the page of a response; nothing, for a good one."""
    return lambda response: list(Page(response.text).problems())


@pytest.fixture(scope="session")
def shipped_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of `config/`, whatever the developer's own app folder changes."""
    return load({"APP_ENV": "testing", "APP_DIR": str(tmp_path_factory.mktemp("empty"))})


@pytest.fixture
def settings(tmp_path: Path, shipped_settings: Settings) -> Settings:
    """Settings of an installation that keeps its data in the test's own folder."""
    folder = AppDir(tmp_path / "app")
    folder.data.mkdir(parents=True)
    (folder.path / "logs").mkdir()
    (folder.path / "work").mkdir()
    log = json.dumps(shipped_settings.logging).replace(str(shipped_settings.app_dir.path), str(folder.path))
    return msgspec.structs.replace(shipped_settings, app_dir=folder, logging=json.loads(log))


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all migrations, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "app.sqlite3"
    engine = connect(f"sqlite:///{path}")
    command.upgrade(alembic_config(engine), "heads")
    engine.dispose()
    return path


@pytest.fixture
def engine(tmp_path: Path, migrated_database: Path) -> Iterator[Engine]:
    """A migrated database of its own, with no service around it."""
    path = tmp_path / "alone.sqlite3"
    shutil.copyfile(migrated_database, path)
    engine = connect(f"sqlite:///{path}")
    yield engine
    engine.dispose()


@pytest.fixture
def make_app(settings: Settings, migrated_database: Path) -> Iterator[Callable[..., Flask]]:
    """Makes services on one migrated database; keywords are environment variables that change their settings."""
    made = []

    def make(**environment: str) -> Flask:
        if not settings.app_dir.database.exists():
            shutil.copyfile(migrated_database, settings.app_dir.database)
        common = {"APP_ENV": "testing", "APP_DIR": str(settings.app_dir.path), "SECRET_KEY": SECRET}
        app = create_app(load({**common, **environment}) if environment else settings)
        app.test_client_class = Browser
        # Every app compiles its templates anew; that is most of what a test of a page would wait for.
        app.jinja_env.bytecode_cache = FileSystemBytecodeCache(str(migrated_database.parent))
        made.append(app)
        return app

    yield make
    for app in made:
        svcs.flask.close_registry(app)


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The service on a migrated database."""
    return make_app()


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
def work(app: Flask) -> Callable[[], int]:
    """Lets a worker run until the queue is empty; returns how many jobs have failed."""
    return run_jobs


@pytest.fixture
def tomorrow(app: Flask) -> Callable[[], None]:
    """Makes the jobs due that wait for a day, such as removals of files."""

    def tomorrow() -> None:
        with transaction(app) as session:
            session.execute(update(QueueMessage).values(due=QueueMessage.due - 86_400))

    return tomorrow


@pytest.fixture
def fragile(app: Flask) -> Iterator[dramatiq.Actor[[str], None]]:
    """A job that fails because of what it is sent; it is done if that is nothing."""

    # No feature's own actor may have this name.
    @dramatiq.actor(actor_name="test_fragile", max_retries=0)
    def fragile(problem: str = "") -> None:
        if problem:
            raise ValueError(problem)

    yield fragile
    del dramatiq.get_broker().actors["test_fragile"]


@pytest.fixture
def disks(app: Flask) -> Disks:
    """The service's disks, in the test's own folder."""
    with app.app_context():
        return svcs.flask.get(Disks)


@pytest.fixture
def commit_fails(app: Flask, monkeypatch: pytest.MonkeyPatch) -> AbstractContextManager[None]:
    """While it is entered, requests that write are rolled back at their end, as on a full disk."""
    original = Session.commit

    def commit(session: Session) -> None:
        if request.method == "POST":
            raise OperationalError("COMMIT", None, Exception("the disk is full"))
        original(session)

    @contextmanager
    def failing() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(Session, "commit", commit)
            patched.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
            yield

    return failing()


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    """A session that is committed at the end of the test."""
    with transaction(app) as session:
        yield session


def run_jobs() -> int:
    """Let a worker of the last app run the jobs that are due within an hour; returns how many have failed."""
    broker = dramatiq.get_broker()
    assert isinstance(broker, DatabaseBroker)
    due = select(func.count()).where(~QueueMessage.dead, QueueMessage.due < database_time() + 3600)
    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    deadline = time.monotonic() + 20
    try:
        while broker.rows(due)[0][0]:
            assert time.monotonic() < deadline, "jobs are left"
            time.sleep(0.01)
    finally:
        worker.stop()
    return int(broker.rows(select(func.count()).where(QueueMessage.dead))[0][0])


def add_user(app: Flask, settings: Settings, username: str) -> User:
    """Store an account."""
    with transaction(app) as session:
        password_hash = hash_password(PASSWORD, settings.security.argon2)
        user = User(username=username, email=f"{username}@example.org", password_hash=password_hash)
        session.add(user)
    return user
