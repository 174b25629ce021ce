"""Links to files: who gets what by which link, and for how long."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import pytest
import svcs
from flask import Flask
from sqlalchemy import Engine, event
from werkzeug.http import http_date, parse_options_header
from werkzeug.test import TestResponse

from app import files
from config import Settings
from storage import PermissionDenied, StorageError
from storage.disks import Disks
from storage.local import LocalBackend

MakeApp = Callable[..., Flask]
Link = Callable[..., str]
NOW = 1_800_000_000.25
HOUR = timedelta(hours=1)
DATA = bytes(range(256)) * 300
SIZE = len(DATA)
behind_nginx = pytest.mark.parametrize("accel", ["/protected/"])
# `media` and `other` are folders, `memory` is not.
DISKS = {"APP_STORAGE__DISKS__MEMORY": "memory://", "APP_STORAGE__DISKS__OTHER": "other"}


class Clock:
    """The time of the test, which stands still."""

    now = NOW


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


@pytest.fixture
def accel() -> str:
    return ""


@pytest.fixture
def app(make_app: MakeApp, accel: str) -> Flask:
    return make_app(**DISKS, APP_STORAGE__ACCEL_REDIRECT=accel)


@pytest.fixture
def link(app: Flask, disks: Disks) -> Link:
    """Writes a file and makes a link to it, outside of a request as a job does."""

    def link(path: str = "a.png", disk: str = "media", *, expires: timedelta = HOUR, data: bytes = DATA) -> str:
        disks[disk].write(path, data)
        with app.app_context():
            return disks[disk].url(path, expires=expires)

    return link


def signed(app: Flask, disk: str, path: str) -> str:
    """A link to anything at all."""
    with app.app_context():
        return files.link(disk, path, HOUR)


def until(link: str) -> int:
    return int(parse_qs(urlsplit(link).query)["expires"][0])


def statuses(client: Any, links: list[str]) -> dict[str, int]:
    """What each answers, of those that do not answer 403."""
    return {link: status for link in links if (status := client.get(link).status_code) != 403}


@pytest.mark.parametrize("disk", ["media", "memory"])
def test_a_link_leads_to_the_file(client: Any, link: Link, disk: str) -> None:
    for path in ("a.png", "b/ü ö/100%.png", "q?u=e&r#y+.png", "c/" * 100 + "d.png"):
        with client.get(link(path, disk)) as response:
            assert response.status_code == 200
            assert response.data == DATA
            assert response.content_length == SIZE
            assert response.mimetype == "image/png"


def test_whoever_has_the_link_needs_no_account_and_no_database(app: Flask, client: Any, link: Link) -> None:
    address = link()
    used = []
    with app.app_context():
        engine = svcs.flask.get(Engine)
    event.listen(engine, "checkout", lambda *arguments: used.append(arguments))
    for headers in ({}, {"Range": "bytes=0-1"}, {"If-Modified-Since": http_date(time.time() + 60)}):
        with client.get(address, headers=headers) as response:
            assert response.status_code < 400
    assert used == []


def test_a_link_that_was_changed_is_refused(client: Any, link: Link) -> None:
    good = link()
    place, _, query = good.partition("?")
    expires, _, signature = query.partition("&")
    key, _, digest = signature.partition("=")
    assert key == "signature"
    link("b.png")
    link("a.png", "other")
    link("a.png", "memory")
    assert client.get(good, buffered=True).status_code == 200
    changed = [
        place,
        f"{place}?{expires}",
        f"{place}?{signature}",
        f"{place}?{expires}&signature=",
        f"{place}?{expires}&signature={digest[:-1]}",
        f"{place}?{expires}&signature={digest}A",
        f"{place}?{expires}&signature={digest.swapcase()}",
        f"{place}?{expires}&signature=%00%FF\N{SNOWMAN}",
        *(f"{place}?expires={value}&{signature}" for value in ("", "x", "-1", "1e99", "9" * 5000, until(good) + 1)),
        good.replace("a.png", "b.png"),
        good.replace("a.png", "./a.png"),
        good.replace("/media/", "/other/"),
        good.replace("/media/", "/memory/"),
        good.replace("/media/", "/Media/"),
    ]
    assert good not in changed
    assert statuses(client, changed) == {}


def test_a_refusal_is_a_page_for_people_and_a_document_for_programs(
    client: Any, page_problems: Callable[[TestResponse], list[str]]
) -> None:
    page = client.get("/files/media/a.png")
    assert "This link is not valid." in page.text
    assert page_problems(page) == []
    document = client.get("/files/media/a.png", headers={"Accept": "application/json"})
    assert (document.status_code, document.content_type) == (403, "application/problem+json")
    assert document.json["detail"] == "This link is not valid."


def test_a_link_ends(client: Any, link: Link, clock: Clock) -> None:
    address = link()
    clock.now = until(address) - 0.01
    with client.get(address) as response:
        assert response.status_code == 200
    for clock.now in (until(address), until(address) + 0.01, until(address) + 10**9):
        response = client.get(address)
        assert response.status_code == 403
        assert "This link has expired." in response.text
        assert response.headers["Cache-Control"] == "no-store"


def test_a_link_holds_at_most_as_long_as_was_asked_and_at_least_seven_eighths_of_it(link: Link, clock: Clock) -> None:
    for seconds in (8, 9, 60, 1000, 3600, 86_400, 604_800):
        for clock.now in (NOW, NOW + 0.74, NOW + 1, NOW + seconds / 9, NOW + seconds / 8, NOW + seconds):
            left = until(link(data=b"", expires=timedelta(seconds=seconds))) - clock.now
            assert seconds * 7 / 8 <= left <= seconds


def test_a_link_stays_the_same_for_a_while_so_that_browsers_ask_only_whether_the_file_has_changed(
    client: Any, link: Link, clock: Clock
) -> None:
    addresses = []
    for second in range(0, 3600, 60):
        clock.now = NOW + second
        addresses.append(link(data=b""))
    assert len(set(addresses)) == 8
    with client.get(addresses[-1]) as response:
        assert response.cache_control.private
        assert response.cache_control.no_cache
        assert "Set-Cookie" not in response.headers


def test_a_file_that_is_gone_and_a_disk_that_never_was_are_not_found(app: Flask, client: Any, disks: Disks) -> None:
    disks["media"].write("folder/a.png", DATA)
    for disk, path in (("media", "b.png"), ("media", "folder"), ("memory", "b.png"), ("nowhere", "b.png")):
        assert client.get(signed(app, disk, path)).status_code == 404


@pytest.mark.parametrize("disk", ["media", "memory"])
def test_no_link_leads_out_of_its_disk_even_if_it_is_signed(
    app: Flask, client: Any, settings: Settings, disks: Disks, disk: str
) -> None:
    secret = settings.app_dir.path / "secret.txt"
    secret.write_bytes(b"the code of the vault is 1815")
    media = settings.app_dir.path / "media"
    disks["media"].write("a", DATA)
    (media / "link").symlink_to(secret)
    (media / "out").symlink_to(settings.app_dir.path)
    (media / ".partial-b").write_bytes(b"half of it")
    os.mkfifo(media / "pipe")
    for path in (
        "../secret.txt",
        "a/../../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "..\\secret.txt",
        str(secret),
        f"/{secret}",
        "link",
        "out/secret.txt",
        ".partial-b",
        "pipe",
        "a\0.png",
        "a\n.png",
        "x" * 300,
        "x/" * 600,
        "..",
        ".",
    ):
        for accept in ("text/html", "application/json"):
            response = client.get(signed(app, disk, path), headers={"Accept": accept}, follow_redirects=True)
            assert response.status_code in (403, 404), path
            assert b"1815" not in response.data
            assert b"half" not in response.data


def test_the_address_itself_cannot_climb(client: Any, settings: Settings, link: Link) -> None:
    (settings.app_dir.path / "secret.txt").write_bytes(b"1815")
    query = link().partition("?")[2]
    for path in (
        "media/../secret.txt",
        "media/%2e%2e/secret.txt",
        "media/..%2fsecret.txt",
        "../secret.txt",
        "media/%ff",
    ):
        response = client.get(f"/files/{path}?{query}", follow_redirects=True)
        assert response.status_code in (403, 404)
        assert b"1815" not in response.data


@pytest.mark.parametrize("error", [StorageError, PermissionDenied])
def test_a_disk_that_fails_is_unavailable_and_says_nothing_of_itself(
    client: Any, link: Link, monkeypatch: pytest.MonkeyPatch, error: type[StorageError]
) -> None:
    def fail(_backend: LocalBackend, path: str) -> BinaryIO:
        raise error(f"{path}: /srv/secret: Input/output error")

    address = link()
    monkeypatch.setattr(LocalBackend, "reader", fail)
    for accept in ("text/html", "application/json"):
        response = client.get(address, headers={"Accept": accept})
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "Please try again." in response.text
        assert "secret" not in response.text
        assert "Traceback" not in response.text


@pytest.mark.parametrize("disk", ["media", "memory"])
def test_a_file_that_has_not_changed_is_not_sent_again(client: Any, link: Link, disk: str) -> None:
    address = link(disk=disk)
    with client.get(address) as first:
        tag, modified = first.headers["ETag"], first.headers["Last-Modified"]
        before = http_date(first.last_modified.timestamp() - 1)
    for header, value, status in (
        ("If-None-Match", tag, 304),
        ("If-None-Match", f'"another", {tag}', 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"another"', 200),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", before, 200),
        ("If-Modified-Since", "yesterday", 200),
        ("If-Match", '"another"', 412),
    ):
        with client.get(address, headers={header: value}) as response:
            assert (response.status_code, header, value) == (status, header, value)
            assert response.headers["ETag"] == tag
            if status != 412:
                assert response.data == (DATA if status == 200 else b"")
    link(disk=disk, data=DATA[::-1])
    with client.get(address, headers={"If-None-Match": tag}) as response:
        assert response.data == DATA[::-1]
        assert response.headers["ETag"] != tag


@pytest.mark.parametrize("disk", ["media", "memory"])
def test_ranges_are_sent(client: Any, link: Link, disk: str) -> None:
    address = link(disk=disk)
    for asked, start, end in (
        ("0-0", 0, 1),
        ("0-99", 0, 100),
        ("66000-70000", 66_000, 70_001),
        (f"{SIZE - 5}-", SIZE - 5, SIZE),
        ("0-", 0, SIZE),
        ("-7", SIZE - 7, SIZE),
        (f"{SIZE - 2}-{SIZE * 2}", SIZE - 2, SIZE),
    ):
        with client.get(address, headers={"Range": f"bytes={asked}"}) as response:
            assert response.status_code == 206, asked
            assert response.data == DATA[start:end]
            assert response.content_length == end - start
            assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"


def test_a_range_beyond_the_file_is_refused_with_its_size(client: Any, link: Link) -> None:
    for asked in (f"{SIZE}-", f"{SIZE}-{SIZE * 2}", "9" * 30 + "-"):
        response = client.get(link(), headers={"Range": f"bytes={asked}"})
        assert response.status_code == 416
        assert response.headers["Content-Range"] == f"bytes */{SIZE}"
        assert response.data != DATA
    with client.get(link(data=b""), headers={"Range": "bytes=0-"}) as response:
        assert (response.status_code, response.data, response.content_length) == (200, b"", 0)


def test_a_range_that_is_none_or_several_is_refused(client: Any, link: Link) -> None:
    address = link()
    for asked in ("bytes=0-1,5-6", "bytes=5-2", "bytes=x", "bytes", "-"):
        assert client.get(address, headers={"Range": asked}).status_code == 416, asked


def test_a_range_of_a_file_that_was_replaced_is_the_whole_file(client: Any, link: Link) -> None:
    address = link()
    with client.get(address) as first:
        tag, modified = first.headers["ETag"], first.headers["Last-Modified"]
    assert first.headers["Accept-Ranges"] == "bytes"
    for validator, status in ((tag, 206), (modified, 206), ('"another"', 200), (http_date(0), 200)):
        with client.get(address, headers={"Range": "bytes=1-2", "If-Range": validator}) as response:
            assert response.status_code == status
            assert response.data == (DATA[1:3] if status == 206 else DATA)


def test_head_tells_all_and_sends_nothing(client: Any, link: Link) -> None:
    address = link()
    with client.get(address) as whole, client.head(address) as head:
        assert head.status_code == 200
        assert head.data == b""
        varying = ("X-Request-ID", "Date")
        assert [pair for pair in head.headers if pair[0] not in varying] == [
            pair for pair in whole.headers if pair[0] not in varying
        ]
    assert head.content_length == SIZE
    assert client.post(address).status_code in (400, 405)


def test_browsers_show_pictures_and_save_what_could_run(client: Any, link: Link) -> None:
    shown = {
        "a.png": "image/png",
        "a.JPG": "image/jpeg",
        "a.jpeg": "image/jpeg",
        "a.webp": "image/webp",
        "a.mp4": "video/mp4",
        "a.html.txt": "text/plain",
    }
    saved = [
        "a.html",
        "a.HTM",
        "a.svg",
        "a.xml",
        "a.pdf",
        "a.js",
        "a.css",
        "a.png.exe",
        "a.png.",
        "a",
        ".png",
        "x.png/b",
    ]
    for path in (*shown, *saved):
        with client.get(link(path, "memory", data=b"<script>alert(1)</script>")) as response:
            disposition, options = parse_options_header(response.headers["Content-Disposition"])
            assert response.mimetype == shown.get(path, "application/octet-stream")
            assert disposition == ("inline" if path in shown else "attachment")
            assert options == {"filename": path.rpartition("/")[2]}
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_file_is_saved_under_its_own_name_whatever_that_is(client: Any, link: Link) -> None:
    for name in (
        "größe.pdf",
        'a"b;c=d.pdf',
        "100% \N{SNOWMAN}.pdf",
        "日本.pdf",
        "it's, \N{PILE OF POO}.pdf",
        "-rf ~.pdf",
    ):
        with client.get(link(f"folder/{name}", "memory")) as response:
            header = response.headers["Content-Disposition"]
            assert header.isascii()
            assert parse_options_header(header) == ("attachment", {"filename": name})


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"Range": "bytes=1-2"}, 206),
        ("HEAD", {"Range": "bytes=1-2"}, 206),
        ("GET", {"If-None-Match": "*"}, 304),
        ("GET", {"If-Match": '"another"'}, 412),
        ("GET", {"Range": "bytes=999999-"}, 416),
    ],
)
def test_the_file_is_closed_again(
    client: Any, link: Link, monkeypatch: pytest.MonkeyPatch, method: str, headers: dict[str, str], status: int
) -> None:
    opened = []
    reader = LocalBackend.reader

    def watch(backend: LocalBackend, path: str) -> BinaryIO:
        opened.append(reader(backend, path))
        return opened[-1]

    monkeypatch.setattr(LocalBackend, "reader", watch)
    with client.open(link(), method=method, headers=headers) as response:
        assert response.status_code == status
    assert [stream.closed for stream in opened] == [True]


def test_an_address_below_a_prefix_leads_there(app: Flask, client: Any, disks: Disks, link: Link) -> None:
    outside = link()
    with app.test_request_context("/", environ_overrides={"SCRIPT_NAME": "/shop"}):
        address = disks["media"].url("a.png", expires=HOUR)
    assert address == f"/shop{outside}"
    # What a proxy passes on without the prefix, and what it passes on with it.
    for path, prefix in ((outside, ""), (outside, "/shop")):
        with client.get(path, environ_overrides={"SCRIPT_NAME": prefix}) as response:
            assert response.data == DATA


@behind_nginx
def test_nginx_is_told_where_the_file_is(client: Any, link: Link) -> None:
    for path, quoted in (
        ("a.png", "a.png"),
        ("b/ü ö/100%.png", "b/%C3%BC%20%C3%B6/100%25.png"),
        ("q?u=e&r#y.png", "q%3Fu%3De%26r%23y.png"),
    ):
        for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"}):
            response = client.get(link(path), headers=headers)
            assert response.status_code == 200
            assert response.headers["X-Accel-Redirect"] == f"/protected/media/{quoted}"
            assert response.data == b""
            assert response.mimetype == "image/png"
            assert response.headers["Content-Disposition"].startswith("inline; filename")
            assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
            assert response.cache_control.private
            # nginx has its own.
            assert not {"ETag", "Last-Modified", "Accept-Ranges", "Content-Range"} & set(response.headers.keys())


@behind_nginx
def test_the_service_sends_what_nginx_cannot_reach(client: Any, link: Link) -> None:
    with client.get(link(disk="memory")) as response:
        assert response.data == DATA
        assert "X-Accel-Redirect" not in response.headers


@behind_nginx
def test_the_service_still_decides_who_gets_what(
    app: Flask, client: Any, link: Link, settings: Settings, clock: Clock
) -> None:
    good = link()
    (settings.app_dir.path / "media" / "link").symlink_to(settings.app_dir.path)
    answers = {
        good.replace("signature=", "signature=x"): 403,
        signed(app, "media", "b.png"): 404,
        signed(app, "media", "../a.png"): 404,
        signed(app, "media", "link/data/app.sqlite3"): 404,
    }
    for address, status in answers.items():
        response = client.get(address)
        assert response.status_code == status
        assert "X-Accel-Redirect" not in response.headers
    clock.now = until(good) + 1
    assert client.get(good).status_code == 403
