"""A CSV file on its way from the upload form through the queue to posts."""

import csv
import io
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import count
from operator import attrgetter
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from app.accounts import User
from app.blog import Post, forms, jobs
from app.blog.forms import check_rows
from app.blog.jobs import import_posts, remove_expired_exports
from app.blog.models import PostImport
from app.services import transaction
from config import Settings
from database import utc_now
from database.schedule import SCHEDULES
from storage.disks import Disks

Work = Callable[[], int]
Problems = Callable[[TestResponse], list[str]]
GOOD = b'title,body\r\nNotes,On the Engine\r\nMore,"Two lines,\nand a ""quote"""\r\n'
BAD = b"title,body\r\n=Fine,text\r\n,text\r\n=" + b"x" * 200 + b",\r\n"
SLOT = "2026-01-01T03:45:00+00:00"
JSON = {"Accept": "application/json"}


def upload(client: Any, data: bytes = GOOD, name: str = "posts.csv") -> TestResponse:
    """Choose a file in the form, and send it."""
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get("/posts/import").text)
    assert token
    # Werkzeug's client would leave the file open in which it keeps what is large.
    boundary, body = encode_multipart({"csrf_token": token[1], "file": FileStorage(io.BytesIO(data), name)})
    content_type = f"multipart/form-data; boundary={boundary}"
    response: TestResponse = client.post("/posts/import", data=body, content_type=content_type)
    return response


def state(app: Flask, number: int = 1) -> str:
    """That of an import, as the database has it now."""
    with transaction(app) as session:
        return session.get_one(PostImport, number).state


def posts(app: Flask) -> list[tuple[str, str]]:
    with transaction(app) as session:
        return [(post.title, post.body) for post in session.scalars(select(Post).order_by(Post.id))]


def held(disks: Disks) -> list[str]:
    """The files on all disks, random names as `*`."""
    paths = [f"{name}: {entry.path}" for name, disk in disks.items() for entry in disk.list()]
    return [re.sub("[0-9a-f]{32}", "*", path) for path in paths]


def age(settings: Settings, by: timedelta) -> None:
    """Make all files older."""
    moment = (utc_now() - by).timestamp()
    for place in settings.app_dir.data.rglob("*"):
        if place.is_file():
            os.utime(place, (moment, moment))


def test_only_who_is_logged_in_can_import(client: Any, user: User, disks: Disks) -> None:
    assert client.get("/posts/import").location == "/login"
    assert client.submit("/posts/import", page="/register").location == "/login"
    assert client.get("/posts/imports/1").location == "/login"
    assert client.get("/posts/imports/1", headers=JSON).status_code == 401
    assert held(disks) == []
    assert "/posts/import" not in client.get("/profile/ada").text
    client.log_in("ada")
    assert 'href="/posts/import"' in client.get("/profile/ada").text
    assert 'href="/posts/import"' in client.get("/posts/new").text


def test_an_uploaded_file_becomes_posts_once_a_worker_has_checked_it(
    app: Flask, logged_in: Any, disks: Disks, work: Work, page_problems: Problems
) -> None:
    assert page_problems(logged_in.get("/posts/import")) == []
    response = upload(logged_in, name="../../x.csv")
    assert (response.status_code, response.location) == (302, "/posts/imports/1")
    waiting = logged_in.get("/posts/imports/1")
    assert "It waits for its turn." in waiting.text
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in waiting.text
    assert 'src="/static/progress.js"' in waiting.text
    assert page_problems(waiting) == []
    progress = logged_in.get("/posts/imports/1", headers=JSON).json
    assert progress == {"status": "It waits for its turn.", "done": 0, "total": 0, "finished": False}
    assert held(disks) == ["default: blog/uploads/*"]

    assert work() == 0
    assert posts(app) == [("Notes", "On the Engine"), ("More", 'Two lines,\nand a "quote"')]
    assert held(disks) == ["batches: posts/1/posts.csv"]
    done = logged_in.get("/posts/imports/1")
    assert "<h1>Your posts are imported</h1>" in done.text
    assert "2 posts are on" in done.text
    assert "refresh" not in done.text
    assert "progress" not in done.text
    assert page_problems(done) == []
    progress = logged_in.get("/posts/imports/1", headers=JSON).json
    assert (progress["done"], progress["total"], progress["finished"]) == (2, 2, True)
    assert "Notes" in logged_in.get("/profile/ada").text


def test_its_progress_can_be_seen_while_it_is_checked_and_everybody_can_write(
    app: Flask,
    logged_in: Any,
    settings: Settings,
    work: Work,
    page_problems: Problems,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    validate = forms.PostForm.validate

    def look(form: forms.PostForm) -> Any:
        if form.title.data == "4":
            with sqlite3.connect(settings.app_dir.database, timeout=1) as somebody:
                somebody.execute("UPDATE user_account SET email = 'new@example.org'")
            somebody.close()
            seen.append(logged_in.get("/posts/imports/1"))
        return validate(form)

    monkeypatch.setattr(forms, "STEP", 2)
    monkeypatch.setattr(forms.PostForm, "validate", look)
    upload(logged_in, b"title,body\n1,a\n2,b\n3,c\n4,d\n5,e\n")
    assert work() == 0
    [page] = seen
    assert "It is being worked on." in page.text
    assert 'max="5" value="2"' in page.text
    assert "2 of 5 posts" in page.text
    assert page_problems(page) == []
    assert len(posts(app)) == 5


def test_if_any_row_is_wrong_nothing_is_imported_and_a_report_says_what(
    app: Flask, logged_in: Any, disks: Disks, work: Work, page_problems: Problems
) -> None:
    upload(logged_in, BAD)
    assert work() == 0
    assert posts(app) == []
    page = logged_in.get("/posts/imports/1")
    assert "<h1>Nothing is imported</h1>" in page.text
    assert "3 things are wrong" in page.text
    assert re.findall(r"<tr><td>(\d+)</td><td>(\w+)</td><td>(.*)</td></tr>", page.text) == [
        ("3", "title", "Give a title."),
        ("4", "title", "Use at most 200 characters."),
        ("4", "body", "Write something."),
    ]
    assert "the first" not in page.text
    assert page_problems(page) == []
    assert held(disks) == ["batches: posts/1/errors.csv", "batches: posts/1/posts.csv"]

    [link] = re.findall(r'href="(/files/[^"]+)"', page.text)
    with logged_in.get(link.replace("&amp;", "&")) as report:
        assert report.headers["Content-Disposition"] == "attachment; filename=errors.csv"
        lines = list(csv.reader(io.StringIO(report.data.decode("utf-8-sig"))))
    assert lines == [
        ["row", "column", "message", "found"],
        ["3", "title", "Give a title.", ""],
        ["4", "title", "Use at most 200 characters.", "'=" + "x" * 49],
        ["4", "body", "Write something.", ""],
    ]


def test_of_many_errors_the_page_shows_the_first(logged_in: Any, work: Work) -> None:
    upload(logged_in, b"title,body\n" + b",text\n" * 30)
    assert work() == 0
    page = logged_in.get("/posts/imports/1").text
    assert "30 things are wrong" in page
    assert "These are the first 20." in page
    assert page.count("Give a title.") == 20


def test_what_begins_as_no_csv_file_of_posts_is_refused_at_once(
    app: Flask, logged_in: Any, disks: Disks, page_problems: Problems
) -> None:
    header = "The first row has to name the columns title and body, with a comma between them; found"
    for data, name, sentence in (
        (b"", "", "Choose a file."),
        (b"", "posts.csv", "This file is empty."),
        (b"title,body\n", "posts.csv", "This file holds no posts."),
        (b"\x89PNG\r\n", "posts.csv", "Line 1 is not UTF-8 text. Save the file as CSV in UTF-8."),
        (b"title,body,<date>\n1,2,3\n", "posts.csv", f"{header} title, body, &lt;date&gt;."),
    ):
        response = upload(logged_in, data, name)
        assert response.status_code == 422
        assert re.findall('<p class="wrong">(.*)</p>', response.text) == [sentence]
        assert page_problems(response) == []
    assert held(disks) == []
    assert logged_in.get("/posts/imports/1").status_code == 404


def test_what_turns_out_to_be_no_csv_file_is_refused_with_one_line(
    app: Flask, logged_in: Any, work: Work, page_problems: Problems
) -> None:
    upload(logged_in, b"title,body\n1,a\n2,\xff\n")
    assert work() == 0
    page = logged_in.get("/posts/imports/1")
    assert "<h1>Nothing is imported</h1>" in page.text
    assert '<p class="wrong">Line 3 is not UTF-8 text. Save the file as CSV in UTF-8.</p>' in page.text
    assert page_problems(page) == []
    assert posts(app) == []


def test_a_file_may_be_as_large_as_the_settings_say(make_app: Callable[..., Flask], user: User) -> None:
    client: Any = make_app(APP_SECURITY__MAX_UPLOAD_SIZE="20000").test_client()
    client.log_in("ada")
    assert "At most 20.0 kB." in client.get("/posts/import").text
    most = b"title,body\nNotes,"
    assert upload(client, most.ljust(20_000, b"x")).status_code == 302
    assert "Use a file of at most 20.0 kB." in upload(client, most.ljust(20_001, b"x")).text
    assert upload(client, most.ljust(40_000, b"x")).status_code == 413


def test_too_many_uploads_are_refused_for_a_while(make_app: Callable[..., Flask], user: User) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__POST_IMPORT="2 per hour").test_client()
    client.log_in("ada")
    assert [upload(client).status_code for _ in range(3)] == [302, 302, 429]
    assert client.get("/posts/import").status_code == 200


def test_a_form_from_elsewhere_imports_nothing(logged_in: Any, disks: Disks) -> None:
    for token in ({}, {"csrf_token": "forged"}):
        response = logged_in.post("/posts/import", data={"file": (io.BytesIO(GOOD), "posts.csv"), **token})
        assert response.status_code == 400
    assert held(disks) == []


def test_nobody_else_sees_an_import(app: Flask, logged_in: Any, other_user: User) -> None:
    upload(logged_in)
    other: Any = app.test_client()
    other.log_in("grace")
    for number in ("1", "2", str(10**30)):
        assert other.get(f"/posts/imports/{number}").status_code == 404
        assert other.get(f"/posts/imports/{number}", headers=JSON).status_code == 404
    assert logged_in.get("/posts/imports/1").status_code == 200


def test_a_job_that_comes_again_imports_nothing_twice(app: Flask, logged_in: Any, disks: Disks, work: Work) -> None:
    upload(logged_in)
    # Its worker was lost before it could say that it was done, and before the upload was removed.
    import_posts(1)
    import_posts(1)
    assert work() == 0
    import_posts(1)
    assert len(posts(app)) == 2
    assert state(app) == "done"
    assert held(disks) == ["batches: posts/1/posts.csv"]


@pytest.mark.parametrize(
    ("place", "call", "is_good", "is_upload_gone"),
    [
        ("shutil.copyfileobj", 1, True, False),
        ("check_rows", 1, True, False),
        ("check_rows", 1, True, True),
        ("write_report", 1, False, True),
        ("lock_unfinished", 2, True, False),
        ("lock_unfinished", 2, False, True),
        ("insert_posts", 1, True, True),
    ],
)
def test_a_job_that_was_killed_anywhere_begins_again(
    app: Flask,
    logged_in: Any,
    disks: Disks,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
    is_good: bool,
    is_upload_gone: bool,
) -> None:
    upload(logged_in, GOOD if is_good else BAD)
    calls, original = count(1), attrgetter(place)(jobs)

    def die(*arguments: Any) -> Any:
        result = original(*arguments)
        if next(calls) == call:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as killing:
        killing.setattr(f"app.blog.jobs.{place}", die)
        with pytest.raises(KeyboardInterrupt):
            import_posts(1)
    assert posts(app) == []
    assert state(app) == "running"
    if is_upload_gone:
        [source] = disks["default"].list()
        disks["default"].remove(source.path)

    assert work() == 0
    assert len(posts(app)) == (2 if is_good else 0)
    assert state(app) == ("done" if is_good else "refused")
    assert "default: blog/uploads/*" not in held(disks)


def test_two_workers_with_the_same_job_import_it_once(
    app: Flask, logged_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(logged_in)

    def check_while_another_one_finishes(*arguments: Any) -> Any:
        monkeypatch.setattr(jobs, "check_rows", check_rows)
        import_posts(1)
        return check_rows(*arguments)

    monkeypatch.setattr(jobs, "check_rows", check_while_another_one_finishes)
    import_posts(1)
    assert len(posts(app)) == 2
    assert state(app) == "done"


def test_nobody_waits_for_an_import_whose_job_has_failed_for_good(
    app: Flask, logged_in: Any, monkeypatch: pytest.MonkeyPatch, work: Work, page_problems: Problems
) -> None:
    monkeypatch.setitem(import_posts.options, "max_retries", 0)
    with monkeypatch.context() as failing:
        failing.setattr(jobs, "check_rows", Mock(side_effect=MemoryError))
        upload(logged_in)
        assert work() == 1
    page = logged_in.get("/posts/imports/1")
    assert "Something went wrong on our side." in page.text
    assert "refresh" not in page.text
    assert page_problems(page) == []
    # What is finished stays so.
    import_posts(1)
    jobs.give_up_transfer({"actor_name": "import_posts", "args": (1,)}, {})
    assert state(app) == "failed"
    assert posts(app) == []


def test_the_file_of_an_account_that_is_gone_is_not_kept(
    app: Flask, logged_in: Any, user: User, disks: Disks, settings: Settings, work: Work
) -> None:
    upload(logged_in)
    with transaction(app) as session:
        session.delete(session.get_one(User, user.id))
    assert work() == 0
    age(settings, timedelta(days=2))
    remove_expired_exports(SLOT)
    assert held(disks) == []


def test_an_upload_whose_request_fails_afterwards_is_removed_a_day_later(
    app: Flask,
    logged_in: Any,
    disks: Disks,
    settings: Settings,
    last_commit_fails: AbstractContextManager[None],
    work: Work,
) -> None:
    with last_commit_fails:
        assert upload(logged_in).status_code == 503
    assert work() == 0
    assert logged_in.get("/posts/imports/1").status_code == 404
    remove_expired_exports(SLOT)
    assert held(disks) == ["default: blog/uploads/*"]
    age(settings, timedelta(days=2))
    remove_expired_exports(SLOT)
    assert held(disks) == []


def test_an_import_without_a_job_is_forgotten(app: Flask, logged_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
    monkeypatch.setattr(import_posts, "send", Mock(side_effect=OperationalError("INSERT", None, Exception("full"))))
    assert upload(logged_in).status_code == 503
    assert logged_in.get("/posts/imports/1").status_code == 404


def test_nobody_waits_for_a_database_that_is_locked_while_files_are_removed(
    app: Flask, disks: Disks, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = disks["batches"].remove

    def remove_slowly(path: str) -> None:
        with sqlite3.connect(settings.app_dir.database, timeout=0) as somebody:
            somebody.execute("DELETE FROM rate_limit")
        somebody.close()
        remove(path)

    disks["batches"].write("posts/7/posts.csv", b"")
    age(settings, timedelta(days=2))
    monkeypatch.setattr(disks["batches"], "remove", remove_slowly)
    remove_expired_exports(SLOT)
    assert held(disks) == []


def test_finished_imports_go_after_a_month_and_those_that_wait_stay(
    app: Flask, logged_in: Any, disks: Disks, settings: Settings, work: Work
) -> None:
    def let_pass(time: timedelta) -> None:
        age(settings, time)
        with transaction(app) as session:
            ages = {"created": utc_now() - time}
            session.execute(update(PostImport).values(ages))
            session.execute(update(PostImport).where(PostImport.id == 1).values(finished=utc_now() - time))
        remove_expired_exports(SLOT)

    upload(logged_in)
    work()
    upload(logged_in, BAD)
    let_pass(timedelta(days=29))
    assert held(disks) == ["default: blog/uploads/*", "batches: posts/1/posts.csv"]
    assert "Your posts are imported" in logged_in.get("/posts/imports/1").text
    let_pass(timedelta(days=31))
    assert held(disks) == ["default: blog/uploads/*"]
    assert logged_in.get("/posts/imports/1").status_code == 404
    assert len(posts(app)) == 2
    # No worker has run for a month.
    assert work() == 0
    assert state(app, 2) == "refused"
    assert remove_expired_exports.actor_name in SCHEDULES
