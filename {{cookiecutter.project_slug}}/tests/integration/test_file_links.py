"""Links to files, as a feature uses them. What a browser or an attacker may ask for is the template's own test."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from storage.disks import Disks

DATA = bytes(range(256)) * 300


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The service behind nginx, which reaches no disk in memory."""
    return make_app(APP_STORAGE__DISKS__MEMORY="memory://", APP_STORAGE__ACCEL_REDIRECT="/protected/")


@pytest.fixture
def link(app: Flask, disks: Disks) -> Callable[..., str]:
    """Writes a file and makes a link to it, outside of a request as a job does."""

    def link(path: str = "a.png", disk: str = "memory") -> str:
        disks[disk].write(path, DATA)
        with app.app_context():
            return disks[disk].url(path, expires=timedelta(hours=1))

    return link


def test_a_link_leads_to_the_file_and_to_a_range_of_it(client: Any, link: Callable[..., str]) -> None:
    address = link("b/ü ö/100%.png")
    with client.get(address) as response:
        assert (response.status_code, response.data, response.mimetype) == (200, DATA, "image/png")
    with client.get(address, headers={"If-None-Match": response.headers["ETag"]}) as unchanged:
        assert (unchanged.status_code, unchanged.data) == (304, b"")
    with client.get(address, headers={"Range": "bytes=-7"}) as part:
        assert (part.status_code, part.data) == (206, DATA[-7:])
    assert client.get(address, headers={"Range": f"bytes={len(DATA)}-"}).status_code == 416


def test_what_could_run_is_saved_and_not_shown(client: Any, link: Callable[..., str]) -> None:
    with client.get(link("a.html")) as response:
        assert response.mimetype == "application/octet-stream"
        assert response.headers["Content-Disposition"] == "attachment; filename=a.html"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_a_link_holds_for_one_file_and_for_its_time(
    client: Any, link: Callable[..., str], disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, later = link(), time.time() + 3600
    link("b.png")
    assert "This link is not valid." in client.get(address.replace("a.png", "b.png")).text
    disks["memory"].remove("a.png")
    assert client.get(address).status_code == 404
    monkeypatch.setattr(time, "time", lambda: later)
    response = client.get(address)
    assert response.status_code == 403
    assert "This link has expired." in response.text


def test_nginx_is_told_where_the_file_is(client: Any, link: Callable[..., str]) -> None:
    response = client.get(link("b/100%.png", "media"))
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["X-Accel-Redirect"] == "/protected/media/b/100%25.png"
