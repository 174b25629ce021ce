"""A service with something of ada's in every place, and four people who ask for it."""

import re
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any
from urllib.parse import quote

import dramatiq
import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import insert, select, update
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.routing import Rule
from werkzeug.test import TestResponse, stream_encode_multipart

from app import files
from app.accounts import User
from app.accounts.links import LIFETIMES, new_token
from app.accounts.sessions import UserSession
from app.api.models import new_token as new_api_token
from app.services import transaction
from app.transfers import Transfer
from config import Settings
from database import Base, rate_limits
from database.broker import QueueMessage
from storage.disks import Disks
from tests.conftest import PASSWORD, add_user

ADAS, ADMINISTRATORS = "private-1815", "internal-1642"
WITHOUT_VALUE = "{}: give {} a value in tests/infrastructure/security/conftest.py, which names something of ada's"


class Site:
    """The service, and what is in it."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.query = ""
        """What makes an address of a file a link to ada's; the others have no use for it."""
        self.cookies: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        # What varies in an address, by its name in the rule.
        self.values: dict[str, Any] = {"disk": "media", "filename": "style.css", "name": "remove_expired"}
        self.values |= {"path": "a.png", "username": "ada", "token": "", "session_id": 1}
        # What ends the address of a link in a mail, by its purpose.
        self.links: dict[str, str] = {}
        self.rules = sorted(app.url_map.iter_rules(), key=lambda rule: (rule.endpoint, rule.rule))
        # The database is looked at from outside of the service, and kept as it was in the beginning.
        self.watcher, self.saved = sqlite3.connect(settings.app_dir.database), sqlite3.connect(":memory:")

    def address(self, rule: Rule) -> str:
        """The address of something that is there, and ada's if it is anyone's."""
        names = rule.arguments - (rule.defaults or {}).keys()
        for name in names:
            assert name in self.values, WITHOUT_VALUE.format(rule.rule, name)
        values = {**self.values, "token": self.links.get(rule.endpoint)}
        built = rule.build({name: values[name] for name in names})
        assert built
        return f"{built[1]}?{self.query}"

    def ask(self, who: str, address: str, method: str = "GET", **options: Any) -> TestResponse:
        """One request of a browser that stays as it is, whatever the answer says."""
        headers = {"Cookie": f"{self.settings.app.slug}={quote(self.cookies[who], safe='')}"}
        headers |= options.pop("headers", {})
        client = self.app.test_client(use_cookies=False)
        return client.open(address, method=method, headers=headers, buffered=True, **options)

    def form(self, token: str = "", **fields: Any) -> dict[str, Any]:
        """A body with all fields that any form of the service has, and a token."""
        picture = BytesIO()
        Image.new("RGB", (4, 4)).save(picture, "PNG")
        picture.seek(0)
        given: dict[str, Any] = {"username": "newcomer", "email": "new@example.org", "password": PASSWORD}
        given |= {"title": "t", "body": "b", "current": PASSWORD, "name": "n", "days": "30"}
        given |= {"csrf_token": token, **fields}
        given["picture"] = FileStorage(picture, "a.png", content_type="image/png")
        given["file"] = FileStorage(BytesIO(b"title,body\nt,b\n"), "a.csv", content_type="text/csv")
        stream, _, boundary = stream_encode_multipart(MultiDict(given))
        return {"data": stream.read(), "content_type": f"multipart/form-data; boundary={boundary}"}

    def state(self) -> tuple[object, ...]:
        """Differs from an earlier one if anything was written meanwhile, to the database or to the disks."""
        folder, parts = self.settings.app_dir.path, ("data/uploads", "data/batches", "data/exports", "media")
        found = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
        return self.version(), sorted((str(path), path.stat().st_mtime_ns) for path in found)

    def save(self) -> None:
        """Keep what is in the database now."""
        self.watcher.backup(self.saved)
        self.seen = self.version()

    def restore(self) -> None:
        """Undo what was written to the database."""
        if self.version() != self.seen:
            self.saved.backup(self.watcher)
            self.seen = self.version()

    def version(self) -> int:
        """Another number after each commit of the service."""
        return int(self.watcher.execute("PRAGMA data_version").fetchone()[0])

    def missing_headers(self, response: TestResponse) -> set[str]:
        """What every answer should have, and this one has not."""
        return {*self.settings.security.headers, "X-Request-ID", "Cache-Control"} - set(response.headers.keys())

    def log_in(self, who: str) -> None:
        """Keep the cookie and the token of somebody who has just logged in, or of a visitor."""
        client: Any = self.app.test_client()
        if who != "visitor":
            assert client.log_in(who).status_code == 302
        page = client.get("/login" if who == "visitor" else "/logout").text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert token
        self.cookies[who], self.tokens[who] = client.get_cookie(self.settings.app.slug).value, token[1]


@pytest.fixture
def site(app: Flask, settings: Settings, disks: Disks, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """`visitor` is not logged in, `ada` owns everything, `grace` nothing, and `admin` is an administrator."""
    monkeypatch.setattr(rate_limits, "hit", lambda *_: 0.0)
    site = Site(app, settings)
    disks["media"].write("a.png", b"a picture")
    ada, admin = add_user(app, settings, "ada"), add_user(app, settings, "admin")
    add_user(app, settings, "grace")
    with transaction(app) as session:
        session.get_one(User, admin.id).is_admin = True
        session.get_one(User, ada.id).picture = "a.png"
        transfer = Transfer(id="0" * 32, owner_id=ada.id, disk="exports", file=f"{ADAS}.csv", state="done")
        session.add(transfer)
        session.flush()
        message = dramatiq.get_broker().actors["remove_expired"].send("2026-11-20T03:30:00+00:00")
        session.flush()
        session.execute(update(QueueMessage).values(dead=True, error=ADMINISTRATORS))
        site.values |= {"key": transfer.id, "message_id": message.message_id}
        site.values["number"] = new_api_token(ada, ADAS, "write", 1)[0].id
        if (post := Base.metadata.tables.get("post")) is not None:
            written = insert(post).values(author_id=ada.id, title="t", body="b").returning(post.c.id)
            site.values["post_id"] = session.scalar(written)
    with transaction(app) as session:
        owner = session.get_one(User, ada.id)
        site.links = {f"account.{purpose}": new_token(purpose, owner, owner.email) for purpose in LIFETIMES}
    with app.app_context():
        site.query = files.link("media", "a.png", timedelta(hours=1)).partition("?")[2]
    for who in ("visitor", "ada", "grace", "admin"):
        site.log_in(who)
    with transaction(app) as session:
        site.values["session_id"] = session.scalar(select(UserSession.id).where(UserSession.user_id == ada.id))
    site.save()
    yield site
    site.watcher.close()
    site.saved.close()
