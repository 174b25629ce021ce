"""All posts of a user in a CSV file: from the button through the queue to the download, and back."""

import csv
import io
import re
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from sqlalchemy import insert, select
from werkzeug.test import TestResponse

from app.accounts import User
from app.blog import Post, jobs, models
from app.blog.jobs import export_posts
from app.services import transaction
from database import utc_now
from storage.disks import Disks

Work = Callable[[], int]
TEXTS = [
    ["Notes", "On the Analytical Engine"],
    ["Grüße, 世界", "two\r\nlines\n"],
    ["=1+1", '=HYPERLINK("x")'],
    ["-x", "x"],
]


@pytest.fixture
def texts(app: Flask, user: User, other_user: User) -> list[list[str]]:
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


def download(client: Any, page: str) -> bytes:
    """The file that a page links to."""
    [link] = re.findall(r'href="(/files/[^"]+)"', client.get(page).text)
    with client.get(link.replace("&amp;", "&")) as response:
        name = f"posts-ada-{utc_now():%Y-%m-%d}.csv"
        assert response.headers["Content-Disposition"] == f"attachment; filename={name}"
        return bytes(response.data)


def test_only_users_who_are_logged_in_can_export(client: Any, user: User) -> None:
    assert "/posts/export" not in client.get("/profile/ada").text
    assert client.submit("/posts/export", page="/register").location == "/login"
    client.log_in("ada")
    assert "/posts/export" in client.get("/profile/ada").text
    assert client.post("/posts/export").status_code == 400
    assert client.get("/posts/export").status_code == 405


def test_too_many_exports_are_refused_for_a_while(make_app: Callable[..., Flask], user: User) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__TRANSFER="2 per hour").test_client()
    # Those without a login do not count.
    assert {client.submit("/posts/export", page="/register").location for _ in range(3)} == {"/login"}
    client.log_in("ada")
    assert [export(client).status_code for _ in range(3)] == [302, 302, 429]


def test_the_file_is_linked_once_a_worker_has_made_it_and_can_be_imported_again(
    app: Flask, logged_in: Any, texts: list[list[str]], other_user: User, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer posts are read at a time than there are.
    monkeypatch.setattr(models, "CHUNK_SIZE", 3)
    page = export(logged_in).location
    assert "0 of 4" in logged_in.get(page).text
    assert work() == 0
    assert "Done: 4 rows." in logged_in.get(page).text
    data = download(logged_in, page)
    rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert [row[0] for row in rows] == ["title", "Notes", "Grüße, 世界", "'=1+1", "'-x"]

    other: Any = app.test_client()
    other.log_in("grace")
    assert other.submit("/posts/import", {"file": (io.BytesIO(data), "posts.csv")}).status_code == 302
    assert work() == 0
    with transaction(app) as session:
        query = select(Post).where(Post.author_id == other_user.id, Post.title != "Secret").order_by(Post.id)
        assert [[post.title, post.body] for post in session.scalars(query)] == texts


def test_a_job_that_was_killed_begins_again(
    logged_in: Any, disks: Disks, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = export(logged_in).location
    key = page.rpartition("/")[2]
    with monkeypatch.context() as killing:
        killing.setattr(jobs, "each_post", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_posts(key)
    assert list(disks["exports"].list()) == []
    assert work() == 0
    assert download(logged_in, page).decode("utf-8-sig") == "title,body\r\n"
    [entry] = disks["exports"].list()
    export_posts(key)
    assert list(disks["exports"].list()) == [entry]


@pytest.mark.slow
def test_any_number_of_posts_needs_little_memory(app: Flask, logged_in: Any, user: User) -> None:
    with transaction(app) as session:
        session.execute(insert(Post), [{"author_id": user.id, "title": "x", "body": "x" * 10_000}] * 1000)
    page = export(logged_in).location
    tracemalloc.start()
    export_posts(page.rpartition("/")[2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "Done: 1,000 rows." in logged_in.get(page).text
    assert peak < 6_000_000
