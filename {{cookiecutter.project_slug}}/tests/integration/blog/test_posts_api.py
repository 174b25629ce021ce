"""Posts for programs."""

from typing import Any

import pytest
from flask import Flask

from app.accounts import User
from app.api.models import new_token
from app.blog import Post
from app.services import transaction

POSTS = "/api/v1/posts"
TEXT = {"title": "Tides", "body": "They come, and they go."}


@pytest.fixture
def api(app: Flask, user: User) -> Any:
    """A client with a token of ada's to write with."""
    with transaction(app):
        _, text = new_token(user, "test", "write", 1)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    return client


def test_a_post_is_written_read_changed_and_deleted(api: Any) -> None:
    made = api.post(POSTS, json=TEXT)
    assert made.status_code == 201
    address = made.headers["Location"]
    assert api.get(address).json == made.json == {**made.json, **TEXT, "author": "ada", "updated": None}
    changed = {**TEXT, "title": "Neap tides"}
    answer = api.put(address, json=changed, headers={"If-Match": made.headers["ETag"]})
    assert answer.json["title"] == "Neap tides"
    assert api.delete(address, headers={"If-Match": answer.headers["ETag"]}).status_code == 204
    assert api.get(address).status_code == 404
    assert api.delete(address, headers={"If-Match": "*"}).status_code == 404


def test_a_list_is_read_page_by_page(app: Flask, api: Any, user: User) -> None:
    with transaction(app) as session:
        session.add_all(Post(author_id=user.id, title=f"Post {i}", body="-") for i in range(1, 12))
    first = api.get(POSTS)
    assert [post["title"] for post in first.json] == [f"Post {i}" for i in range(11, 1, -1)]
    assert first.headers["Link"] == f'<http://localhost{POSTS}?before=2>; rel="next"'
    second = api.get(f"{POSTS}?before=2")
    assert [post["title"] for post in second.json] == ["Post 1"]
    assert second.headers["Link"] == f'<http://localhost{POSTS}?after=1>; rel="prev"'
