"""A picture on its way from the upload form through the queue to the profile."""

import io
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from app.accounts import User, jobs
from app.accounts.jobs import make_picture, remove_abandoned_uploads, remove_file
from app.services import transaction
from config import Settings
from database import utc_now
from database.schedule import SCHEDULES
from storage import StorageError
from storage.disks import Disks

Work = Callable[[], int]
Problems = Callable[[TestResponse], list[str]]
RED, BLUE = (200, 30, 30), (30, 30, 200)
MEGABYTE = 1_000_000


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The service, for pictures of at most 2 MB."""
    return make_app(APP_SECURITY__MAX_UPLOAD_SIZE=str(2 * MEGABYTE))


def photo(colour: tuple[int, int, int] = RED, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(file, kind)
    return file.getvalue()


def upload(
    client: Any, data: bytes = photo(), name: str = "me.png", media_type: str = "image/png", *, path: str = "/picture"
) -> TestResponse:
    """Choose a file in the form, and send it."""
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get("/picture").text)
    assert token
    file = FileStorage(io.BytesIO(data), name, content_type=media_type)
    # Werkzeug's client would leave the file open in which it keeps what is large.
    boundary, body = encode_multipart({"csrf_token": token[1], "picture": file})
    response: TestResponse = client.post(path, data=body, content_type=f"multipart/form-data; boundary={boundary}")
    return response


def find(app: Flask, user: User) -> User:
    """The user as the database has it now."""
    with transaction(app) as session:
        return session.get_one(User, user.id)


def held(disks: Disks) -> dict[str, int]:
    """How many files each disk holds, if any."""
    numbers = {name: len(list(disk.list())) for name, disk in disks.items()}
    return {name: number for name, number in numbers.items() if number}


def shown(client: Any) -> Image.Image:
    """The picture on ada's profile."""
    [link] = re.findall('<img class="avatar" src="([^"]+)"', client.get("/profile/ada").text)
    with client.get(link.replace("&amp;", "&")) as response:
        assert (response.status_code, response.mimetype) == (200, "image/webp")
        return Image.open(io.BytesIO(response.data))


def colour(image: Image.Image) -> tuple[int, int, int]:
    red, _, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    return RED if red > blue else BLUE


def age(settings: Settings, by: timedelta) -> None:
    """Make all uploads older."""
    moment = (utc_now() - by).timestamp()
    for place in (settings.app_dir.data / "uploads/accounts/uploads").iterdir():
        os.utime(place, (moment, moment))


def test_only_who_is_logged_in_has_a_picture_to_change(client: Any, user: User, disks: Disks) -> None:
    assert client.get("/picture").location == "/login"
    assert client.submit("/picture", {"picture": (io.BytesIO(photo()), "a.png")}, page="/register").location == "/login"
    assert client.submit("/picture/remove", page="/register").location == "/login"
    assert held(disks) == {}
    assert "Change your picture" not in client.get("/profile/ada").text
    client.log_in("ada")
    assert 'href="/picture"' in client.get("/profile/ada").text


def test_an_uploaded_picture_is_shown_once_a_worker_has_made_it_small(
    app: Flask, logged_in: Any, user: User, disks: Disks, work: Work
) -> None:
    response = upload(logged_in, photo(RED, "JPEG"), "../../me.html", "image/jpeg")
    assert (response.status_code, response.location) == (302, "/profile/ada")
    profile = logged_in.get("/profile/ada").text
    assert "Your new picture will be here in a moment." in profile
    assert "<img" not in profile
    assert "A new one is on its way." in logged_in.get("/picture").text
    [original] = disks["default"].list()
    assert re.fullmatch("accounts/uploads/[0-9a-f]{32}", original.path)

    assert work() == 0
    assert held(disks) == {"media": 1}
    for visitor in (logged_in, app.test_client()):
        image = shown(visitor)
        assert (image.size, image.format, colour(image)) == ((40, 40), "WEBP", RED)
    assert "on its way" not in logged_in.get("/picture").text
    assert find(app, user).picture == f"pictures/{original.path.rpartition('/')[2]}.webp"


def test_a_second_picture_replaces_the_first(app: Flask, logged_in: Any, user: User, disks: Disks, work: Work) -> None:
    upload(logged_in)
    work()
    first = find(app, user).picture
    upload(logged_in, photo(BLUE))
    assert colour(shown(logged_in)) == RED
    assert work() == 0
    assert colour(shown(logged_in)) == BLUE
    assert find(app, user).picture != first
    assert held(disks) == {"media": 1}


def test_of_two_pictures_before_a_worker_comes_the_last_one_wins(logged_in: Any, disks: Disks, work: Work) -> None:
    upload(logged_in, photo(BLUE))
    upload(logged_in, photo(RED))
    assert held(disks) == {"default": 2}
    assert work() == 0
    assert colour(shown(logged_in)) == RED
    assert held(disks) == {"media": 1}


@pytest.mark.slow
def test_of_two_pictures_the_last_one_wins_in_whatever_order_they_are_made(
    app: Flask, logged_in: Any, user: User, disks: Disks, work: Work
) -> None:
    names = []
    for data in (photo(BLUE), photo(RED)):
        upload(logged_in, data)
        names.append(find(app, user).picture_upload or "")
    for name in reversed(names):
        make_picture(user.id, name)
    assert work() == 0
    assert colour(shown(logged_in)) == RED
    assert held(disks) == {"media": 1}


def test_a_picture_can_be_removed(app: Flask, logged_in: Any, user: User, disks: Disks, work: Work) -> None:
    assert "Remove the picture" not in logged_in.get("/picture").text
    upload(logged_in)
    work()
    response = logged_in.submit("/picture/remove", page="/picture")
    assert (response.status_code, response.location) == (302, "/profile/ada")
    profile = logged_in.get("/profile/ada").text
    assert "Your picture is removed." in profile
    assert "<img" not in profile
    assert (find(app, user).picture, find(app, user).picture_upload) == (None, None)
    assert work() == 0
    assert held(disks) == {}
    # Twice is harmless.
    assert logged_in.submit("/picture/remove", page="/logout").status_code == 302


def test_what_is_removed_before_a_worker_has_made_it_never_appears(logged_in: Any, disks: Disks, work: Work) -> None:
    upload(logged_in)
    logged_in.submit("/picture/remove", page="/picture")
    assert work() == 0
    assert "<img" not in logged_in.get("/profile/ada").text
    assert held(disks) == {}


@pytest.mark.parametrize(
    ("username", "initials"),
    [("grace-hopper", "GH"), ("ada", "A"), ("a_b-c", "AB"), ("x--y", "XY"), ("0-0", "00"), ("abc-", "A"), ("a__", "A")],
)
def test_who_has_no_picture_has_initials(username: str, initials: str) -> None:
    assert User(username=username).initials == initials


def test_initials_are_shown_and_not_read_out(client: Any, user: User) -> None:
    assert '<span class="avatar" aria-hidden="true">A</span>' in client.get("/profile/ada").text


def test_what_is_no_good_picture_is_refused_with_the_reason(
    app: Flask, logged_in: Any, user: User, disks: Disks, page_problems: Problems
) -> None:
    damaged = "This is not a JPEG, PNG or WebP picture, or it is damaged."
    for data, name, media_type, sentence in (
        (b"", "", "application/octet-stream", "Choose a picture."),
        (b"", "me.png", "image/png", "This file is empty."),
        (b"no picture", "me.png", "image/png", damaged),
        (photo()[:60], "me.png", "image/png", damaged),
        (photo(kind="GIF"), "me.gif", "image/gif", damaged),
        (photo(), "me.jpg", "image/jpeg", "This file says it is image/jpeg, but it is a PNG picture."),
        (photo(), "me.png", "<script>", "This file says it is &lt;script&gt;, but it is a PNG picture."),
        (photo() + bytes(2 * MEGABYTE), "me.png", "image/png", "Use a file of at most 2.0 MB."),
    ):
        response = upload(logged_in, data, name, media_type)
        assert response.status_code == 422
        assert re.findall('<p class="wrong">(.*)</p>', response.text) == [sentence]
        assert page_problems(response) == []
    assert "Choose a picture." in logged_in.submit("/picture", {"picture": "me.png"}).text
    assert held(disks) == {}
    assert find(app, user).picture_upload is None
    assert "in a moment" not in logged_in.get("/profile/ada").text


def test_a_picture_may_be_as_large_as_the_settings_say_and_larger_requests_are_not_read(
    logged_in: Any, disks: Disks, page_problems: Problems
) -> None:
    assert "at most 2.0 MB" in logged_in.get("/picture").text
    # The name beside it shall not count.
    assert upload(logged_in, photo().ljust(2 * MEGABYTE, b"\0"), "x" * 1000).status_code == 302
    assert held(disks) == {"default": 1}
    refused = upload(logged_in, bytes(3 * MEGABYTE))
    assert refused.status_code == 413
    assert "This is too large: at most 2.0 MB can be sent here." in refused.text
    assert page_problems(refused) == []
    assert held(disks) == {"default": 1}


def test_no_other_page_takes_so_much(logged_in: Any) -> None:
    for path in ("/login", "/logout", "/picture/remove"):
        response = upload(logged_in, bytes(MEGABYTE), path=path)
        assert response.status_code == 413
        assert "This is too large: at most 1.0 MB can be sent here." in response.text


def test_a_form_from_elsewhere_changes_nothing(app: Flask, logged_in: Any, user: User, disks: Disks) -> None:
    with transaction(app) as session:
        session.get_one(User, user.id).picture = "pictures/a.webp"
    for path in ("/picture", "/picture/remove"):
        for token in ({}, {"csrf_token": "forged"}):
            response = logged_in.post(path, data={"picture": (io.BytesIO(photo()), "me.png"), **token})
            assert response.status_code == 400
    assert held(disks) == {}
    assert find(app, user).picture == "pictures/a.webp"
    assert logged_in.get("/picture/remove").status_code == 405


@pytest.mark.slow
def test_too_many_uploads_are_refused_for_a_while(make_app: Callable[..., Flask], user: User, disks: Disks) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__PICTURE="2 per hour").test_client()
    client.log_in("ada")
    assert [upload(client).status_code for _ in range(3)] == [302, 302, 429]
    assert held(disks) == {"default": 2}
    assert client.get("/picture").status_code == 200


@pytest.mark.slow
def test_a_job_that_comes_again_does_no_harm(app: Flask, logged_in: Any, user: User, disks: Disks, work: Work) -> None:
    upload(logged_in)
    name = find(app, user).picture_upload or ""
    # Its worker was lost before it could say that it was done, and before the upload was removed.
    make_picture(user.id, name)
    make_picture(user.id, name)
    assert work() == 0
    assert colour(shown(logged_in)) == RED
    make_picture(user.id, name)
    assert work() == 0
    assert colour(shown(logged_in)) == RED
    assert held(disks) == {"media": 1}
    remove_file("media", "pictures/gone")


@pytest.mark.slow
def test_the_picture_of_an_account_that_is_gone_is_not_kept(
    app: Flask, logged_in: Any, user: User, disks: Disks, work: Work
) -> None:
    upload(logged_in)
    with transaction(app) as session:
        session.delete(session.get_one(User, user.id))
    assert work() == 0
    assert held(disks) == {}


@pytest.mark.slow
def test_a_job_that_cannot_write_fails_and_works_when_it_is_tried_again(
    app: Flask, logged_in: Any, user: User, settings: Settings, work: Work
) -> None:
    upload(logged_in)
    name = find(app, user).picture_upload or ""
    media = settings.app_dir.path / "media"
    media.touch()
    with pytest.raises(StorageError):
        make_picture(user.id, name)
    assert find(app, user).picture_upload == name
    media.unlink()
    assert work() == 0
    assert colour(shown(logged_in)) == RED


@pytest.mark.slow
def test_a_disk_that_fails_is_a_page_and_leaves_nothing(
    app: Flask, logged_in: Any, user: User, disks: Disks, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        response = upload(logged_in)
    assert response.status_code == 503
    assert "Please try again." in response.text
    assert "Traceback" not in response.text
    assert "in a moment" not in logged_in.get("/profile/ada").text
    assert find(app, user).picture_upload is None
    assert work() == 0
    assert held(disks) == {}


def test_an_upload_whose_request_fails_afterwards_is_forgotten_and_removed_a_day_later(
    app: Flask,
    logged_in: Any,
    user: User,
    disks: Disks,
    settings: Settings,
    last_commit_fails: AbstractContextManager[None],
    work: Work,
) -> None:
    with last_commit_fails:
        assert upload(logged_in).status_code == 503
    assert find(app, user).picture_upload is None
    assert work() == 0
    assert held(disks) == {"default": 1}

    remove_abandoned_uploads("2026-01-01T03:15:00+00:00")
    assert held(disks) == {"default": 1}
    age(settings, timedelta(days=1, minutes=1))
    remove_abandoned_uploads("2026-01-02T03:15:00+00:00")
    assert held(disks) == {}


def test_nobody_waits_for_a_database_that_is_locked_while_a_file_is_stored(
    logged_in: Any, disks: Disks, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = disks["default"].writer

    def open_slowly(*arguments: Any) -> Any:
        with sqlite3.connect(settings.app_dir.database, timeout=0) as somebody:
            somebody.execute("UPDATE user_account SET email = 'new@example.org'")
        somebody.close()
        return slow(*arguments)

    monkeypatch.setattr(disks["default"], "writer", open_slowly)
    assert upload(logged_in).status_code == 302
    assert "new@example.org" in logged_in.get("/profile/ada").text


def test_nobody_waits_for_a_picture_that_cannot_be_made(
    app: Flask, logged_in: Any, user: User, disks: Disks, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    upload(logged_in)
    work()
    monkeypatch.setattr(jobs, "small_picture", Mock(side_effect=MemoryError))
    monkeypatch.setitem(jobs.make_picture.options, "max_retries", 0)
    upload(logged_in, photo(BLUE))
    assert work() == 1
    assert "on its way" not in logged_in.get("/picture").text
    assert colour(shown(logged_in)) == RED
    assert held(disks) == {"media": 1}


def test_only_old_uploads_that_nobody_waits_for_are_removed(
    logged_in: Any, disks: Disks, settings: Settings, work: Work
) -> None:
    remove_abandoned_uploads("2026-01-01T03:15:00+00:00")
    upload(logged_in)
    disks["default"].write("accounts/uploads/abandoned", b"")
    disks["default"].write("report.pdf", b"")
    age(settings, timedelta(days=2))
    disks["default"].write("accounts/uploads/young", b"")
    remove_abandoned_uploads("2026-01-02T03:15:00+00:00")
    left = [entry.path for entry in disks["default"].list()]
    assert len(left) == 3
    assert {"accounts/uploads/young", "report.pdf"} < set(left)
    # No worker has run for two days.
    assert work() == 0
    assert colour(shown(logged_in)) == RED
    assert remove_abandoned_uploads.actor_name in SCHEDULES


def test_the_pages_are_well_formed_with_and_without_a_picture(
    logged_in: Any, work: Work, page_problems: Problems
) -> None:
    def problems() -> dict[str, list[str]]:
        pages = {path: logged_in.get(path) for path in ("/picture", "/profile/ada")}
        assert {page.status_code for page in pages.values()} == {200}
        return {path: found for path, page in pages.items() if (found := page_problems(page))}

    assert problems() == {}
    upload(logged_in)
    assert problems() == {}
    work()
    assert problems() == {}
