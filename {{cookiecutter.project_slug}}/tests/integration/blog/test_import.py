"""A CSV file on its way from the upload form through the queue to posts."""

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from app.accounts import User
from app.blog import Post, forms, jobs
from app.blog.jobs import import_posts
from app.csv_files import read_rows
from app.services import transaction
from app.transfers import Transfer, unfinished
from storage.disks import Disks

Work = Callable[[], int]
Problems = Callable[[TestResponse], list[str]]
GOOD = b'title,body\r\nNotes,On the Engine\r\nMore,"Two lines,\nand a ""quote"""\r\n'
BAD = b"title,body\r\nFine,text\r\n,text\r\n" + b"x" * 201 + b",\r\n"


def upload(client: Any, data: bytes = GOOD, name: str = "posts.csv") -> TestResponse:
    """Choose a file in the form, and send it."""
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get("/posts/import").text)
    assert token
    # Werkzeug's client would leave the file open in which it keeps what is large.
    boundary, body = encode_multipart({"csrf_token": token[1], "file": FileStorage(io.BytesIO(data), name)})
    content_type = f"multipart/form-data; boundary={boundary}"
    response: TestResponse = client.post("/posts/import", data=body, content_type=content_type)
    return response


def state(app: Flask) -> str:
    """That of the only transfer, as the database has it now."""
    with transaction(app) as session:
        return session.scalars(select(Transfer.state)).one()


def posts(app: Flask) -> list[tuple[str, str]]:
    with transaction(app) as session:
        return [(post.title, post.body) for post in session.scalars(select(Post).order_by(Post.id))]


def held(disks: Disks) -> list[str]:
    """The files on all disks, random names as `*`."""
    paths = [f"{name}: {entry.path}" for name, disk in disks.items() for entry in disk.list()]
    return [re.sub("[0-9a-f]{32}", "*", path) for path in paths]


def test_only_users_who_are_logged_in_can_import(client: Any, user: User, disks: Disks) -> None:
    assert client.get("/posts/import").location == "/login"
    assert client.submit("/posts/import", page="/register").location == "/login"
    assert "/posts/import" not in client.get("/profile/ada").text
    client.log_in("ada")
    assert 'href="/posts/import"' in client.get("/profile/ada").text
    assert 'href="/posts/import"' in client.get("/posts/new").text
    for token in ({}, {"csrf_token": "forged"}):
        response = client.post("/posts/import", data={"file": (io.BytesIO(GOOD), "posts.csv"), **token})
        assert response.status_code == 400
    assert held(disks) == []


def test_an_uploaded_file_becomes_posts_once_a_worker_has_checked_it(
    app: Flask, logged_in: Any, disks: Disks, work: Work, page_problems: Problems
) -> None:
    assert page_problems(logged_in.get("/posts/import")) == []
    response = upload(logged_in, name="../../x.csv")
    assert response.status_code == 302
    assert "0 of 2" in logged_in.get(response.location).text
    assert held(disks) == ["batches: transfers/*/posts.csv"]
    assert posts(app) == []

    assert work() == 0
    assert posts(app) == [("Notes", "On the Engine"), ("More", 'Two lines,\nand a "quote"')]
    assert "Done: 2 rows." in logged_in.get(response.location).text
    assert "Notes" in logged_in.get("/profile/ada").text


def test_if_any_row_is_wrong_nothing_is_imported_and_the_page_lists_what_is(
    app: Flask, logged_in: Any, work: Work
) -> None:
    pages = [upload(logged_in, data).location for data in (BAD, b"title,body\n" + b",text\n" * 101)]
    assert work() == 0
    assert posts(app) == []
    assert re.findall(r"<tr><td>(\d+)</td><td>(\w+)</td><td>(.*)</td></tr>", logged_in.get(pages[0]).text) == [
        ("3", "title", "Give a title."),
        ("4", "title", "Use at most 200 characters."),
        ("4", "body", "Write something."),
    ]
    assert logged_in.get(pages[1]).text.count("Give a title.") == 100


def test_a_file_that_cannot_be_read_is_refused_at_once(
    app: Flask, logged_in: Any, disks: Disks, page_problems: Problems
) -> None:
    header = "The first row must be title,body, the names of the columns. Found:"
    for data, name, sentence in (
        (b"", "", "Choose a file."),
        (b"", "posts.csv", f"{header} nothing."),
        (b"title,body,<date>\n1,2,3\n", "posts.csv", f"{header} title, body, &lt;date&gt;."),
        (b"title,body\n1,a\n2,\xff\n", "posts.csv", "This file is not text in UTF-8. Save it as CSV in UTF-8."),
    ):
        response = upload(logged_in, data, name)
        assert response.status_code == 422
        assert re.findall('<p class="wrong">(.*)</p>', response.text) == [sentence]
        assert page_problems(response) == []
    assert held(disks) == []


def test_a_file_may_be_as_large_as_the_settings_say(
    make_app: Callable[..., Flask], user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = make_app(APP_SECURITY__MAX_UPLOAD_SIZE="20000").test_client()
    client.log_in("ada")
    assert "At most 10,000 posts. At most 20.0 kB." in client.get("/posts/import").text
    most = b"title,body\nNotes,"
    assert upload(client, most.ljust(20_000, b"x")).status_code == 302
    assert upload(client, most.ljust(40_000, b"x")).status_code == 413
    monkeypatch.setattr(forms, "MOST_ROWS", 2)
    assert upload(client, GOOD).status_code == 302
    assert "it may have 2 below the header." in upload(client, GOOD + b"Third,text\r\n").text


def test_too_many_uploads_are_refused_for_a_while(make_app: Callable[..., Flask], user: User) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__TRANSFER="2 per hour").test_client()
    client.log_in("ada")
    assert [upload(client).status_code for _ in range(3)] == [302, 302, 429]
    assert client.get("/posts/import").status_code == 200


@pytest.mark.parametrize("place", ["read_rows", "unfinished", "insert"])
def test_a_job_that_was_killed_anywhere_begins_again_and_imports_once(
    app: Flask, logged_in: Any, work: Work, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    key = upload(logged_in).location.rpartition("/")[2]
    calls = count()

    def die(*arguments: Any, **options: Any) -> Any:
        if place == "unfinished" and next(calls) == 0:
            return unfinished(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as killing:
        killing.setattr(jobs, place, die)
        with pytest.raises(KeyboardInterrupt):
            import_posts(key)
    assert posts(app) == []
    assert work() == 0
    import_posts(key)
    assert len(posts(app)) == 2
    assert state(app) == "done"


def test_two_workers_with_the_same_job_import_it_once(
    app: Flask, logged_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = upload(logged_in).location.rpartition("/")[2]

    def read_while_another_one_finishes(*arguments: Any) -> Any:
        yield from read_rows(*arguments)
        monkeypatch.setattr(jobs, "read_rows", read_rows)
        import_posts(key)

    monkeypatch.setattr(jobs, "read_rows", read_while_another_one_finishes)
    import_posts(key)
    assert len(posts(app)) == 2
    assert state(app) == "done"


def test_an_account_that_is_gone_imports_nothing(app: Flask, logged_in: Any, user: User, work: Work) -> None:
    upload(logged_in)
    with transaction(app) as session:
        session.delete(session.get_one(User, user.id))
    assert work() == 0
    assert posts(app) == []


def test_a_request_that_fails_after_the_upload_imports_nothing(
    app: Flask, logged_in: Any, commit_fails: AbstractContextManager[None], monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    with commit_fails:
        assert upload(logged_in).status_code == 503
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    monkeypatch.setattr(import_posts, "send", Mock(side_effect=OperationalError("INSERT", None, Exception("full"))))
    assert upload(logged_in).status_code == 503
    assert work() == 0
    assert posts(app) == []
    with transaction(app) as session:
        assert session.scalars(select(Transfer)).all() == []
