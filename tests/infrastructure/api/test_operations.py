"""What goes wrong in an operation is told, and nothing is done twice."""

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

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


@pytest.mark.parametrize("key", ["", "k" * 101])
def test_a_key_has_a_length(api: Any, key: str) -> None:
    assert api.post(POSTS, json=TEXT, headers={"Idempotency-Key": key}).status_code == 400


def test_what_was_refused_may_be_sent_again_with_its_key(api: Any) -> None:
    sent = {"headers": {"Idempotency-Key": "k"}}
    assert api.post(POSTS, json={**TEXT, "title": ""}, **sent).status_code == 422
    assert api.post(POSTS, json=TEXT, **sent).status_code == 201


def test_of_two_requests_at_once_with_one_key_one_is_carried_out(
    api: Any, app: Flask, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=20)

    def count_posts(_author: int) -> int:
        both.wait()
        return 0

    monkeypatch.setattr("app.blog.api.count_posts", count_posts)

    def post(_number: int) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
        return app.test_client().post(POSTS, json=TEXT, headers=headers)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(post, range(2))
    assert (first.status_code, first.json) == (second.status_code, second.json) == (201, first.json)
    assert [post["id"] for post in api.get(POSTS).json] == [first.json["id"]]


def test_writing_is_limited_as_on_the_pages(make_app: Callable[..., Flask], token: str) -> None:
    client = make_app(APP_BLOG__POST_LIMIT="2 per hour", APP_BLOG__MOST_POSTS="1").test_client()
    sent = {"json": TEXT, "headers": {"Authorization": f"Bearer {token}"}}
    assert [client.post(POSTS, **sent).status_code for _ in range(3)] == [201, 403, 429]
