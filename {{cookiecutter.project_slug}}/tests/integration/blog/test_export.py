"""All posts of a user in a file: on its way from the button through the queue to the download, and back."""

import io
import os
import re
import sqlite3
import zipfile
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from app.accounts import User
from app.blog import Post, archives, jobs, models
from app.blog.archives import write_archive
from app.blog.jobs import export_posts, remove_expired_exports
from app.blog.models import PostExport
from app.services import transaction
from config import Settings
from database import utc_now
from storage.disks import Disks

Work = Callable[[], int]
Problems = Callable[[TestResponse], list[str]]
TEXTS = [
    ("Notes", "On the Analytical Engine"),
    ("Grüße, 世界", "two\r\nlines\n\nand more"),
    ('"quoted"', 'a ""quote"", and a comma'),
    ("=1+1", '=HYPERLINK("http://example.org")'),
    (" -x", "\n\ttab and \r alone\u2028😀"),
]
SLOT = "2026-01-01T03:45:00+00:00"
JSON = {"Accept": "application/json"}


@pytest.fixture
def texts(app: Flask, user: User, other_user: User) -> list[tuple[str, str]]:
    """What ada has written; grace has written as well."""
    with transaction(app) as session:
        for title, body in TEXTS:
            session.add(Post(author_id=user.id, title=title, body=body))
            session.add(Post(author_id=other_user.id, title="Secret", body="of grace"))
            session.flush()
    return TEXTS


def export(client: Any) -> TestResponse:
    response: TestResponse = client.submit("/posts/export", page="/profile/ada")
    return response


def download(client: Any, path: str = "/posts/exports/1") -> zipfile.ZipFile:
    """The file that the page links to."""
    [link] = re.findall(r'href="(/files/[^"]+)"', client.get(path).text)
    with client.get(link.replace("&amp;", "&")) as response:
        assert response.status_code == 200
        name = f"posts-ada-{utc_now():%Y-%m-%d}.zip"
        assert response.headers["Content-Disposition"] == f"attachment; filename={name}"
        return zipfile.ZipFile(io.BytesIO(response.data))


def state(app: Flask) -> str:
    with transaction(app) as session:
        return session.get_one(PostExport, 1).state


def held(disks: Disks) -> list[str]:
    return [f"{name}: {entry.path}" for name, disk in disks.items() for entry in disk.list()]


def let_pass(app: Flask, settings: Settings, time: timedelta) -> None:
    """Make everything older, and clean up."""
    moment = utc_now() - time
    with transaction(app) as session:
        session.execute(update(PostExport).values(created=moment))
    for place in settings.app_dir.data.rglob("*.zip"):
        os.utime(place, (moment.timestamp(), moment.timestamp()))
    remove_expired_exports(SLOT)


def test_ones_own_profile_has_the_button(client: Any, user: User, other_user: User) -> None:
    for name in ("ada", "grace"):
        assert "/posts/export" not in client.get(f"/profile/{name}").text
    client.log_in("ada")
    assert "/posts/export" in client.get("/profile/ada").text
    assert "/posts/export" not in client.get("/profile/grace").text


def test_the_file_is_linked_once_a_worker_has_made_it(
    logged_in: Any, texts: list[tuple[str, str]], disks: Disks, work: Work, page_problems: Problems
) -> None:
    response = export(logged_in)
    assert (response.status_code, response.location) == (302, "/posts/exports/1")
    waiting = logged_in.get("/posts/exports/1")
    assert "<h1>Your posts are being collected</h1>" in waiting.text
    assert "/files/" not in waiting.text
    assert page_problems(waiting) == []
    progress = logged_in.get("/posts/exports/1", headers=JSON).json
    assert progress == {"status": "It waits for its turn.", "done": 0, "total": 0, "finished": False}

    assert work() == 0
    done = logged_in.get("/posts/exports/1")
    assert "<h1>Your posts are ready</h1>" in done.text
    assert "It holds 5 posts" in done.text
    assert page_problems(done) == []
    assert page_problems(logged_in.get("/profile/ada")) == []
    with download(logged_in) as archive:
        assert len(archive.namelist()) == 6
        assert b"Secret" not in archive.read("posts.csv")
    assert len(held(disks)) == 1


def test_what_is_exported_can_be_imported_by_somebody_else(
    app: Flask, logged_in: Any, texts: list[tuple[str, str]], other_user: User, work: Work
) -> None:
    export(logged_in)
    work()
    other: Any = app.test_client()
    other.log_in("grace")
    with download(logged_in) as archive:
        file = io.BytesIO(archive.read("posts.csv"))
    response = other.submit("/posts/import", {"file": (file, "posts.csv")})
    assert response.status_code == 302
    assert work() == 0
    with transaction(app) as session:
        query = select(Post).where(Post.author_id == other_user.id, Post.title != "Secret").order_by(Post.id)
        assert [(post.title, post.body) for post in session.scalars(query)] == texts


def test_who_has_no_posts_gets_a_file_without_any(logged_in: Any, work: Work) -> None:
    export(logged_in)
    assert work() == 0
    assert "It holds 0 posts" in logged_in.get("/posts/exports/1").text
    with download(logged_in) as archive:
        assert archive.namelist() == ["posts.csv"]


def test_its_progress_can_be_seen_and_everybody_can_write_meanwhile(
    logged_in: Any, texts: list[tuple[str, str]], settings: Settings, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    zip_info = zipfile.ZipInfo

    def look(*arguments: Any) -> zipfile.ZipInfo:
        with sqlite3.connect(settings.app_dir.database, timeout=1) as somebody:
            somebody.execute("UPDATE user_account SET email = 'new@example.org'")
        somebody.close()
        progress = logged_in.get("/posts/exports/1", headers=JSON).json
        seen.append((progress["status"], progress["done"], progress["total"]))
        return zip_info(*arguments)

    # Fewer posts in each piece than there are.
    monkeypatch.setattr(models, "CHUNK_SIZE", 2)
    monkeypatch.setattr(archives, "STEP", 2)
    monkeypatch.setattr(archives, "ZipInfo", look)
    export(logged_in)
    assert work() == 0
    assert seen == [("It is being worked on.", done, 5) for done in (0, 0, 2, 2, 4)]
    with download(logged_in) as archive:
        assert len(archive.namelist()) == 6


def test_only_who_is_logged_in_can_export_and_nobody_else_sees_it(
    app: Flask, client: Any, user: User, other_user: User
) -> None:
    assert client.submit("/posts/export", page="/register").location == "/login"
    assert client.get("/posts/exports/1").location == "/login"
    client.log_in("ada")
    assert client.post("/posts/export").status_code == 400
    assert client.get("/posts/export").status_code == 405
    export(client)
    other: Any = app.test_client()
    other.log_in("grace")
    for number in ("1", "2", str(10**30)):
        assert other.get(f"/posts/exports/{number}").status_code == 404
    assert client.get("/posts/exports/1").status_code == 200


def test_too_many_exports_are_refused_for_a_while(make_app: Callable[..., Flask], user: User) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__POST_EXPORT="2 per hour").test_client()
    client.log_in("ada")
    assert [export(client).status_code for _ in range(3)] == [302, 302, 429]


def test_a_job_that_comes_again_changes_nothing(
    app: Flask, logged_in: Any, texts: list[tuple[str, str]], disks: Disks, work: Work
) -> None:
    export(logged_in)
    export_posts(1)
    [entry] = disks["exports"].list()
    export_posts(1)
    assert work() == 0
    assert list(disks["exports"].list()) == [entry]
    assert state(app) == "done"


@pytest.mark.parametrize(("place", "call"), [("write_archive", 1), ("lock_unfinished", 2), ("_report_progress", 1)])
def test_a_job_that_was_killed_anywhere_begins_again(
    app: Flask,
    logged_in: Any,
    texts: list[tuple[str, str]],
    disks: Disks,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
) -> None:
    export(logged_in)
    calls, original = count(1), getattr(jobs, place)

    def die(*arguments: Any) -> Any:
        if next(calls) == call:
            if place == "write_archive":
                arguments[0].write(b"half a file")
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as killing:
        killing.setattr(jobs, place, die)
        with pytest.raises(KeyboardInterrupt):
            export_posts(1)
    assert state(app) == "running"
    assert len(held(disks)) == (1 if place == "lock_unfinished" else 0)
    assert work() == 0
    with download(logged_in) as archive:
        assert len(archive.namelist()) == 6


def test_nobody_waits_for_an_export_whose_job_has_failed_for_good(
    app: Flask, logged_in: Any, disks: Disks, monkeypatch: pytest.MonkeyPatch, work: Work, page_problems: Problems
) -> None:
    monkeypatch.setattr(jobs, "write_archive", Mock(side_effect=OSError))
    monkeypatch.setitem(export_posts.options, "max_retries", 0)
    export(logged_in)
    assert work() == 1
    page = logged_in.get("/posts/exports/1")
    assert "Something went wrong on our side." in page.text
    assert "/files/" not in page.text
    assert page_problems(page) == []
    assert held(disks) == []


def test_exports_go_after_a_week(app: Flask, logged_in: Any, disks: Disks, settings: Settings, work: Work) -> None:
    export(logged_in)
    work()
    let_pass(app, settings, timedelta(days=6))
    assert len(held(disks)) == 1
    assert logged_in.get("/posts/exports/1").status_code == 200
    let_pass(app, settings, timedelta(days=8))
    assert held(disks) == []
    assert logged_in.get("/posts/exports/1").status_code == 404
    # Its number, by which files are named, does not come back.
    assert export(logged_in).location == "/posts/exports/2"


def test_the_file_of_an_account_that_is_gone_is_not_kept(
    app: Flask,
    logged_in: Any,
    user: User,
    disks: Disks,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    work: Work,
) -> None:
    def delete_the_account_and_write(*arguments: Any) -> None:
        with transaction(app) as session:
            session.delete(session.get_one(User, user.id))
        write_archive(*arguments)

    monkeypatch.setattr(jobs, "write_archive", delete_the_account_and_write)
    export(logged_in)
    assert work() == 0
    assert len(held(disks)) == 1
    let_pass(app, settings, timedelta(days=2))
    assert held(disks) == []
