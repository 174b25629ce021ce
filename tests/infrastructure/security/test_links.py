"""Links written in ways that no page writes them. What else a link may and may not do: tests/infrastructure/files."""

import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask_wtf.csrf import generate_csrf
from itsdangerous import Signer

from app import files
from storage.disks import Disks

DATA = bytes(range(256))


@pytest.fixture
def link(app: Flask, disks: Disks) -> str:
    """A link to a file that is there, good for an hour."""
    disks["media"].write("a b.png", DATA)
    disks["media"].write("other.png", b"another file")
    with app.app_context():
        return files.link("media", "a b.png", timedelta(hours=1))


def parts(link: str) -> tuple[str, str, str]:
    """Its path, and the values of `expires` and `signature`."""
    path, _, query = link.partition("?expires=")
    until, _, signature = query.partition("&signature=")
    return path, until, signature


def spellings(link: str) -> list[str]:
    """The same file and time, written otherwise, and written twice."""
    path, until, signature = parts(link)
    later, full_width = int(until) + 9999, "".join(chr(ord(digit) + 0xFEE0) for digit in until)
    times = [f"+{until}", f"%20{until}", f"0{until}", f"{until[:4]}_{until[4:]}", quote(full_width), f"{until}.0"]
    times += [f"{until}&expires={later}", f"{later}&expires={until}", f"{until}%0A", f"{until}%00", f"0x{int(until):x}"]
    times += [f"{until}&Expires={later}", f"{until};expires={later}", f"&expires[]={later}&expires={until}"]
    queries = [f"expires={moment}&signature={signature}" for moment in times]
    queries += [
        f"expires={until}&signature={sign}" for sign in (f"{signature}&signature=A", f"A&signature={signature}")
    ]
    queries += [
        f"signature={signature}&expires={until}",
        f"expires={until}&signature={quote(signature[0] + signature[1:])}",
    ]
    paths = [path.replace("a", "%61"), path.replace("%20", "+"), path.replace("/media/", "/%6dedia/"), f"/{path}"]
    return [f"{path}?{query}" for query in queries] + [f"{place}?{link.partition('?')[2]}" for place in paths]


def test_no_spelling_of_a_link_leads_elsewhere_or_holds_for_longer(
    client: Any, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {address: client.get(address, buffered=True) for address in [link, *spellings(link)]}
    assert answers[link].data == DATA
    for address, answer in answers.items():
        assert answer.status_code in (403, 404, 308) or answer.data == DATA, address
    end = int(parts(link)[1])
    monkeypatch.setattr(time, "time", lambda: end)
    assert [address for address in answers if client.get(address, buffered=True).status_code == 200] == []


def test_no_signature_that_was_made_for_something_else_opens_a_file(app: Flask, client: Any, link: str) -> None:
    path, until, good = parts(link)
    text, key = f"media\na b.png\n{until}", app.secret_key or ""
    session: Any = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    with app.test_request_context():
        token = generate_csrf()
    made = [session.dumps(text), session.dumps({}).rsplit(".", 1)[1], token, Signer(key).get_signature(text).decode()]
    made += [Signer(key, salt="cookie-session").get_signature(text).decode()]
    made += [
        Signer(key, salt="app.files").get_signature(text).decode(),
        Signer("", salt="app.files").sign(text).decode(),
    ]
    assert client.get(f"{path}?expires={until}&signature={good}", buffered=True).status_code == 200
    for signature in made:
        assert client.get(f"{path}?expires={until}&signature={quote(signature)}").status_code == 403, signature


@pytest.mark.parametrize("header", ["Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since", "Accept"])
def test_what_is_asked_of_a_file_costs_no_more_than_the_file(client: Any, link: str, header: str) -> None:
    for value in (
        "bytes=" + ",".join(["0-"] * 2000),
        "bytes=" + ",".join(f"{start}-{start}" for start in range(1500)),
        f"bytes={'9' * 5000}-",
        f"bytes=0-{'9' * 5000}",
        f"bytes=-{'9' * 5000}",
        "bytes=-0",
        "bytes=--1",
        "bytes=0-0,-",
        "bytes = 0 - 1",
        "lines=0-1",
        '"' * 8000,
        'W/"' + "a" * 8000,
        ",".join(['"a"'] * 2000),
        "Thu, 99 Foo 99999999999999 99:99:99 GMT",
        "\xff\xfe",
    ):
        headers = {header: value} if header == "Range" else {"Range": "bytes=1-2", header: value}
        with client.get(link, headers=headers) as response:
            assert response.status_code in (200, 206, 304, 412, 416), value
            assert response.status_code > 400 or response.data in DATA
            assert response.content_length is None or response.status_code > 400 or response.content_length <= len(DATA)
