"""Requests at the same time, on each database: nothing is done twice, and no change is lost."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from alembic import command
from flask import Flask

from database import connect
from database.migrations import alembic_config

posts = pytest.importorskip("app.blog.api", reason="needs app/blog")
POSTS = "/api/v1/posts"
TEXT = {"title": "Tides", "body": "They come, and they go."}


@pytest.fixture(params=["sqlite", "postgresql"])
def app(request: pytest.FixtureRequest, make_app: Callable[..., Flask]) -> Flask:
    if request.param == "sqlite":
        return make_app()
    engine = connect(request.getfixturevalue("postgres_url"))
    command.upgrade(alembic_config(engine), "heads")
    engine.dispose()
    return make_app(DATABASE_URL=request.getfixturevalue("postgres_url"))


@pytest.fixture
def both(app: Flask, token: str) -> Callable[..., list[Any]]:
    """Sends a request twice at once."""

    def send(**request: Any) -> Any:
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client.open(**request)

    def both(**request: Any) -> list[Any]:
        with ThreadPoolExecutor(2) as threads:
            return [sent.result() for sent in [threads.submit(send, **request) for _ in range(2)]]

    return both


@pytest.mark.parametrize("key", ["", "k" * 101])
def test_a_key_has_a_length(api: Any, key: str) -> None:
    assert api.post(POSTS, json=TEXT, headers={"Idempotency-Key": key}).status_code == 400


def test_what_was_refused_may_be_sent_again_with_its_key(api: Any) -> None:
    sent = {"headers": {"Idempotency-Key": "k"}}
    assert api.post(POSTS, json={**TEXT, "title": ""}, **sent).status_code == 422
    assert api.post(POSTS, json=TEXT, **sent).status_code == 201


def test_of_two_posts_with_one_key_one_is_carried_out(
    api: Any, both: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def count_posts(_author: int) -> int:
        meeting.wait()
        return 0

    monkeypatch.setattr(posts, "count_posts", count_posts)
    first, second = both(path=POSTS, method="POST", json=TEXT, headers={"Idempotency-Key": "k"})
    assert (first.status_code, first.json) == (second.status_code, second.json) == (201, first.json)
    assert [post["id"] for post in api.get(POSTS).json] == [first.json["id"]]


def test_of_two_changes_of_one_version_one_is_refused(
    api: Any, both: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = api.post(POSTS, json=TEXT)
    meeting, require_match = threading.Barrier(2, timeout=0.5), posts.require_match

    def slow_match(current: Any) -> None:
        with suppress(threading.BrokenBarrierError):  # Only one gets here, as it has the lock.
            meeting.wait()
        require_match(current)

    monkeypatch.setattr(posts, "require_match", slow_match)
    changes = both(
        path=f"{POSTS}/{made.json['id']}", method="PUT", json=TEXT, headers={"If-Match": made.headers["ETag"]}
    )
    assert sorted(change.status_code for change in changes) == [200, 412]
