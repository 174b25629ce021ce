"""Links to files: who gets what by which link, and for how long."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from werkzeug.http import parse_options_header

from config import Settings
from storage.disks import Disks

MakeApp = Callable[..., Flask]
Link = Callable[..., str]
DATA = bytes(range(256)) * 300
SIZE = len(DATA)
DISKS = {"APP_STORAGE__DISKS__MEMORY": "memory://", "APP_STORAGE__DISKS__OTHER": "other"}


@pytest.fixture
def accel() -> str:
    return ""


@pytest.fixture
def app(make_app: MakeApp, accel: str) -> Flask:
    return make_app(**DISKS, APP_STORAGE__ACCEL_REDIRECT=accel)


@pytest.fixture
def link(app: Flask, disks: Disks) -> Link:
    """Writes a file and makes a link to it, outside of a request as a job does."""

    def link(path: str = "a.png", disk: str = "media", data: bytes = DATA) -> str:
        disks[disk].write(path, data)
        with app.app_context():
            return disks[disk].url(path, expires=timedelta(hours=1))

    return link


@pytest.mark.parametrize("disk", ["media", "memory"])
def test_a_link_leads_to_the_file_and_to_ranges_of_it(client: Any, link: Link, disk: str) -> None:
    address = link("b/ü ö/100%.png", disk)
    with client.get(address) as response:
        assert (response.status_code, response.data, response.mimetype) == (200, DATA, "image/png")
        assert response.cache_control.private
        tag = response.headers["ETag"]
    for asked, status, start, end in (("0-99", 206, 0, 100), ("-7", 206, SIZE - 7, SIZE), (f"{SIZE}-", 416, 0, 0)):
        with client.get(address, headers={"Range": f"bytes={asked}"}) as response:
            assert response.status_code == status
            if status == 206:
                assert response.data == DATA[start:end]
    with client.get(address, headers={"If-None-Match": tag}) as response:
        assert (response.status_code, response.data) == (304, b"")


def test_a_link_that_was_changed_is_refused(client: Any, link: Link) -> None:
    good = link()
    link("b.png")
    link("a.png", "other")
    until = parse_qs(urlsplit(good).query)["expires"][0]
    for changed in (
        good.partition("?")[0],
        good[:-1],
        good.replace("a.png", "b.png"),
        good.replace("/media/", "/other/"),
        good.replace(until, str(int(until) + 1)),
    ):
        response = client.get(changed)
        assert response.status_code == 403
        assert "This link is not valid." in response.text


def test_a_link_ends(client: Any, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    address, later = link(), time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    response = client.get(address)
    assert response.status_code == 403
    assert "This link has expired." in response.text


def test_a_file_that_is_gone_is_not_found(client: Any, link: Link, disks: Disks) -> None:
    address = link()
    disks["media"].remove("a.png")
    assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    ("path", "kind", "disposition"),
    [
        ("a.JPG", "image/jpeg", "inline"),
        ("a.html.txt", "text/plain", "inline"),
        ("a.html", "application/octet-stream", "attachment"),
        ("a.svg", "application/octet-stream", "attachment"),
        ("größe.pdf", "application/octet-stream", "attachment"),
    ],
)
def test_browsers_show_pictures_and_save_what_could_run(
    client: Any, link: Link, path: str, kind: str, disposition: str
) -> None:
    with client.get(link(path, data=b"<script>alert(1)</script>")) as response:
        assert response.mimetype == kind
        found = parse_options_header(response.headers["Content-Disposition"])
        assert found == (disposition, {"filename": path})
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("accel", ["/protected/"])
def test_nginx_is_told_where_the_file_is_and_the_service_still_decides(
    client: Any, link: Link, settings: Settings
) -> None:
    response = client.get(link("b/100%.png"), headers={"Range": "bytes=0-1"})
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["X-Accel-Redirect"] == "/protected/media/b/100%25.png"
    assert not {"ETag", "Last-Modified", "Accept-Ranges", "Content-Range"} & set(response.headers.keys())
    with client.get(link(disk="memory")) as sent:
        assert sent.data == DATA
    assert client.get(link().replace("signature=", "signature=x")).status_code == 403
