"""What goes wrong in an operation is told, and docs/api.md shows calls that work."""

import io
import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import insert

from app.accounts import User
from app.services import transaction
from config import ROOT
from database import Base, utc_now
from tests.infrastructure.conftest import needs_blog
from tests.infrastructure.security.test_hostile_input import BODIES

POSTS = "/api/v1/posts"
TEXT = {"title": "Tides", "body": "They come, and they go."}
JSON = "application/json"
pytestmark = needs_blog


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        (b'{"title": "t", "body": 1}', 422, "$.body"),
        (b'{"title": "t", "text": "b"}', 422, "`text`"),
        (b'{"title": " ", "body": "b"}', 422, "$.title"),
        (b'{"title": "t"', 400, "truncated"),
        (b'{"title": ' + b"[" * 100_000, 422, "$.title"),
        (b" " * 1_100_000, 413, "1.0 MB"),
    ],
    ids=["type", "unknown", "blank", "broken", "deep", "large"],
)
def test_what_is_wrong_is_told_with_its_place(api: Any, body: bytes, status: int, place: str) -> None:
    answer = api.post(POSTS, data=body, content_type=JSON, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert place in answer.json["detail"]


def test_a_malformed_body_is_never_an_error_of_the_service(api: Any) -> None:
    address = api.post(POSTS, json=TEXT).headers["Location"]
    for method, path in (("POST", POSTS), ("PUT", address)):
        for kind, body in BODIES:
            answer = api.open(
                path,
                method=method,
                input_stream=io.BytesIO(body),
                content_length=len(body),
                content_type=kind,
                headers={"If-Match": "*"},
            )
            assert answer.status_code in (400, 415, 422), (kind, body)
            assert answer.mimetype == "application/problem+json"


def test_all_errors_are_for_programs(api: Any) -> None:
    browser = {"Accept": "text/html"}
    for method, path, status in (
        ("GET", "/api/nowhere", 404),
        ("GET", f"{POSTS}/99", 404),
        ("GET", f"{POSTS}/x", 404),
        ("PATCH", POSTS, 405),
        ("POST", POSTS, 415),
        ("DELETE", f"{POSTS}/{2**70}", 404),
    ):
        answer = api.open(path, method=method, headers=browser)
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_writing_is_limited_as_on_the_pages(make_app: Callable[..., Flask], token: str) -> None:
    client = make_app(APP_BLOG__POST_LIMIT="2 per hour", APP_BLOG__MOST_POSTS="1").test_client()
    sent = {"json": TEXT, "headers": {"Authorization": f"Bearer {token}"}}
    assert [client.post(POSTS, **sent).status_code for _ in range(3)] == [201, 403, 429]


def test_the_calls_that_are_shown_work(app: Flask, token: str) -> None:
    page = (ROOT / "docs/api.md").read_text().replace("\\\n", "")
    answers = []
    for line in re.findall(r"(?m)^curl .*", page):
        parts = shlex.split(line.replace("$TOKEN", token))
        options = {name: [value for at, value in pairwise(parts) if at == name] for name in ("-H", "-d", "-X")}
        headers = dict(header.split(": ", 1) for header in options["-H"])
        method, data = ([*options["-X"], "POST"][0], options["-d"][0]) if options["-d"] else ("GET", "")
        path = parts[-1].removeprefix("http://127.0.0.1:8000")
        answers.append(app.test_client().open(path, method=method, headers=headers, data=data).status_code)
    assert answers == [200, 201, 200]


def test_the_post_of_another_is_only_read(app: Flask, api: Any, other_user: User) -> None:
    with transaction(app) as session:
        session.execute(insert(Base.metadata.tables["post"]).values(author_id=other_user.id, created=utc_now(), **TEXT))
    assert api.get(f"{POSTS}/1").json["author"] == "grace"
    assert api.put(f"{POSTS}/1", json=TEXT, headers={"If-Match": "*"}).status_code == 403
