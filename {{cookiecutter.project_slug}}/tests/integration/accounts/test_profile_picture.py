"""A picture on its way from the upload form through the queue to the profile."""

import io
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from app.accounts import User, jobs
from app.accounts.jobs import make_picture, remove_abandoned_uploads
from app.services import transaction
from config import Settings
from database.schedule import SCHEDULES
from storage import StorageError
from storage.disks import Disks

Work = Callable[[], int]
Settle = Callable[[], None]
Problems = Callable[[TestResponse], list[str]]
RED, BLUE = (200, 30, 30), (30, 30, 200)
MEGABYTE = 1_000_000
SLOT = "2026-01-01T03:15:00+00:00"


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The service, for pictures of at most 2 MB."""
    return make_app(APP_SECURITY__MAX_UPLOAD_SIZE=str(2 * MEGABYTE))


@pytest.fixture
def settle(work: Work, tomorrow: Callable[[], None]) -> Callable[[], None]:
    """Lets a worker run, and again a day later, when it removes files."""

    def settle() -> None:
        assert work() == 0
        tomorrow()
        assert work() == 0

    return settle


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


def test_only_users_who_are_logged_in_have_a_picture_to_change(client: Any, user: User, disks: Disks) -> None:
    assert client.get("/picture").location == "/login"
    assert client.submit("/picture", {"picture": (io.BytesIO(photo()), "a.png")}, page="/register").location == "/login"
    assert client.submit("/picture/remove", page="/register").location == "/login"
    assert "Change your picture" not in client.get("/profile/ada").text
    client.log_in("ada")
    assert 'href="/picture"' in client.get("/profile/ada").text
    for path in ("/picture", "/picture/remove"):
        for token in ({}, {"csrf_token": "forged"}):
            response = client.post(path, data={"picture": (io.BytesIO(photo()), "me.png"), **token})
            assert response.status_code == 400
    assert client.get("/picture/remove").status_code == 405
    assert held(disks) == {}


def test_an_uploaded_picture_is_shown_once_a_worker_has_made_it_small(
    app: Flask, logged_in: Any, user: User, disks: Disks, work: Work, tomorrow: Callable[[], None]
) -> None:
    assert '<span class="avatar" aria-hidden="true">A</span>' in logged_in.get("/profile/ada").text
    response = upload(logged_in, photo(RED, "JPEG"), "../../me.html", "image/jpeg")
    assert (response.status_code, response.location) == (302, "/profile/ada")
    profile = logged_in.get("/profile/ada").text
    assert "Your new picture will be here in a moment." in profile
    assert "<img" not in profile
    assert "A new one is on its way." in logged_in.get("/picture").text
    [original] = disks["default"].list()
    assert re.fullmatch("accounts/uploads/[0-9a-f]{32}", original.path)

    assert work() == 0
    for visitor in (logged_in, app.test_client()):
        image = shown(visitor)
        assert (image.size, image.format, colour(image)) == ((40, 40), "WEBP", RED)
    assert "on its way" not in logged_in.get("/picture").text
    assert find(app, user).picture == f"pictures/{original.path.rpartition('/')[2]}.webp"
    # A backup that has copied the database before still finds the upload.
    assert held(disks) == {"default": 1, "media": 1}
    tomorrow()
    assert work() == 0
    assert held(disks) == {"media": 1}


def test_a_second_picture_replaces_the_first(
    app: Flask, logged_in: Any, user: User, disks: Disks, settle: Settle
) -> None:
    upload(logged_in)
    settle()
    first = find(app, user).picture
    upload(logged_in, photo(BLUE))
    assert colour(shown(logged_in)) == RED
    settle()
    assert colour(shown(logged_in)) == BLUE
    assert find(app, user).picture != first
    assert held(disks) == {"media": 1}


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_pictures_the_last_one_wins_in_whatever_order_they_are_made(
    app: Flask, logged_in: Any, user: User, disks: Disks, settle: Settle, order: int
) -> None:
    names = []
    for data in (photo(BLUE), photo(RED)):
        upload(logged_in, data)
        names.append(find(app, user).picture_upload or "")
    for name in names[::order]:
        make_picture(user.id, name)
    settle()
    assert colour(shown(logged_in)) == RED
    assert held(disks) == {"media": 1}


@pytest.mark.parametrize("is_made", [True, False])
def test_a_picture_can_be_removed_before_and_after_it_is_made(
    app: Flask, logged_in: Any, user: User, disks: Disks, settle: Settle, is_made: bool
) -> None:
    assert "Remove the picture" not in logged_in.get("/picture").text
    upload(logged_in)
    if is_made:
        settle()
    # Twice is harmless.
    for page in ("/picture", "/logout"):
        response = logged_in.submit("/picture/remove", page=page)
        assert (response.status_code, response.location) == (302, "/profile/ada")
    assert "Your picture is removed." in logged_in.get("/profile/ada").text
    settle()
    assert "<img" not in logged_in.get("/profile/ada").text
    assert (find(app, user).picture, find(app, user).picture_upload) == (None, None)
    assert held(disks) == {}


def test_an_unusable_picture_is_refused_with_the_reason(
    app: Flask, logged_in: Any, user: User, disks: Disks, page_problems: Problems
) -> None:
    damaged = "This is not a JPEG, PNG or WebP picture, or it is damaged."
    for data, name, media_type, sentence in (
        (b"", "", "application/octet-stream", "Choose a picture."),
        (b"", "me.png", "image/png", "This file is empty."),
        (b"GIF89a", "me.png", "image/png", damaged),
        (photo(), "me.png", "<script>", "This file says it is &lt;script&gt;, but it is a PNG picture."),
    ):
        response = upload(logged_in, data, name, media_type)
        assert response.status_code == 422
        assert re.findall('<p class="wrong">(.*)</p>', response.text) == [sentence]
        assert page_problems(response) == []
    assert "Choose a picture." in logged_in.submit("/picture", {"picture": "me.png"}).text
    assert held(disks) == {}
    assert find(app, user).picture_upload is None


def test_a_damaged_picture_is_found_by_its_job_and_its_user_is_told(
    logged_in: Any, disks: Disks, settle: Settle, page_problems: Problems
) -> None:
    assert upload(logged_in, photo()[:60]).status_code == 302
    settle()
    assert "Your last picture is damaged" in logged_in.get("/picture").text
    assert page_problems(logged_in.get("/picture")) == []
    assert held(disks) == {}
    upload(logged_in)
    settle()
    assert "damaged" not in logged_in.get("/picture").text
    assert colour(shown(logged_in)) == RED


def test_a_picture_may_be_as_large_as_the_settings_say_and_larger_requests_are_not_read(
    logged_in: Any, disks: Disks, page_problems: Problems
) -> None:
    assert "At most 2.0 MB" in logged_in.get("/picture").text
    # The name beside it does not count.
    assert upload(logged_in, photo().ljust(2 * MEGABYTE, b"\0"), "x" * 1000).status_code == 302
    refused = upload(logged_in, bytes(3 * MEGABYTE))
    assert refused.status_code == 413
    assert "This is too large: at most 2.0 MB can be sent here." in refused.text
    assert page_problems(refused) == []
    assert held(disks) == {"default": 1}
    # No other page accepts so much.
    for path in ("/login", "/logout", "/picture/remove"):
        response = upload(logged_in, bytes(MEGABYTE), path=path)
        assert response.status_code == 413
        assert "This is too large: at most 1.0 MB can be sent here." in response.text


def test_too_many_uploads_are_refused_for_a_while(make_app: Callable[..., Flask], user: User, disks: Disks) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__PICTURE="2 per hour").test_client()
    client.log_in("ada")
    assert [upload(client).status_code for _ in range(3)] == [302, 302, 429]
    assert held(disks) == {"default": 2}
    assert client.get("/picture").status_code == 200


def test_a_job_that_runs_again_does_no_harm(
    app: Flask, logged_in: Any, user: User, disks: Disks, settle: Settle
) -> None:
    upload(logged_in)
    name = find(app, user).picture_upload or ""
    # Its worker was killed before it could say that the job was done.
    make_picture(user.id, name)
    settle()
    assert colour(shown(logged_in)) == RED
    make_picture(user.id, name)
    settle()
    assert colour(shown(logged_in)) == RED
    assert held(disks) == {"media": 1}


def test_the_picture_of_an_account_that_is_gone_is_not_kept(
    app: Flask, logged_in: Any, user: User, disks: Disks, settle: Settle
) -> None:
    upload(logged_in)
    with transaction(app) as session:
        session.delete(session.get_one(User, user.id))
    settle()
    assert held(disks) == {}


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


def test_a_disk_that_is_full_is_a_page_and_leaves_nothing(
    app: Flask, logged_in: Any, user: User, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        response = upload(logged_in)
    assert response.status_code == 503
    assert "Please try again." in response.text
    assert "in a moment" not in logged_in.get("/profile/ada").text
    assert find(app, user).picture_upload is None
    assert held(disks) == {}


def test_a_user_does_not_wait_for_a_picture_that_cannot_be_made(
    app: Flask,
    logged_in: Any,
    user: User,
    disks: Disks,
    monkeypatch: pytest.MonkeyPatch,
    work: Work,
    tomorrow: Callable[[], None],
) -> None:
    upload(logged_in)
    work()
    monkeypatch.setattr(jobs, "small_picture", Mock(side_effect=MemoryError))
    monkeypatch.setitem(jobs.make_picture.options, "max_retries", 0)
    upload(logged_in, photo(BLUE))
    assert work() == 1
    assert "on its way" not in logged_in.get("/picture").text
    assert colour(shown(logged_in)) == RED
    tomorrow()
    work()
    assert held(disks) == {"media": 1}


def test_old_uploads_that_no_user_waits_for_are_removed(
    logged_in: Any, disks: Disks, settings: Settings, commit_fails: AbstractContextManager[None], settle: Settle
) -> None:
    with commit_fails:
        assert upload(logged_in).status_code == 503
    remove_abandoned_uploads(SLOT)
    settle()
    assert held(disks) == {"default": 1}
    upload(logged_in)
    disks["default"].write("report.pdf", b"")
    for place in settings.app_dir.data.rglob("uploads/*"):
        os.utime(place, (0, 0))
    disks["default"].write("accounts/uploads/young", b"")
    # No worker has run for long.
    remove_abandoned_uploads(SLOT)
    assert held(disks) == {"default": 4}
    settle()
    assert colour(shown(logged_in)) == RED
    assert {entry.path for entry in disks["default"].list()} == {"accounts/uploads/young", "report.pdf"}
    assert remove_abandoned_uploads.actor_name in SCHEDULES


def test_the_pages_are_well_formed_with_and_without_a_picture(
    logged_in: Any, work: Work, page_problems: Problems
) -> None:
    def problems() -> list[str]:
        return [problem for path in ("/picture", "/profile/ada") for problem in page_problems(logged_in.get(path))]

    assert problems() == []
    upload(logged_in)
    assert problems() == []
    work()
    assert problems() == []
