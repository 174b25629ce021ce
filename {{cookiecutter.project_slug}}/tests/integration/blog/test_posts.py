"""Reading and writing posts."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import svcs
from flask import Flask
from sqlalchemy import Engine, event
from werkzeug.test import TestResponse

from app.accounts import User
from app.blog import Post
from app.services import transaction

AddPosts = Callable[[User, int], None]
Problems = Callable[[TestResponse], list[str]]


@pytest.fixture
def add_posts(app: Flask) -> AddPosts:
    """Stores posts called `Post 1`, `Post 2` and so on; their numbers are the same if they are the first."""

    def add_posts(author: User, number: int) -> None:
        with transaction(app) as session:
            for i in range(1, number + 1):
                session.add(Post(author_id=author.id, title=f"Post {i}", body=f"Text {i}"))
                session.flush()

    return add_posts


def titles(page: TestResponse) -> list[str]:
    return re.findall(r'<h[23]><a href="[^"]*">([^<]*)</a>', page.text)


def find(app: Flask, number: int) -> Post | None:
    with transaction(app) as session:
        return session.get(Post, number)


def test_without_posts_the_index_says_how_to_begin(client: Any) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "There is nothing to read here yet." in page.text
    assert titles(page) == []


def test_the_index_links_older_and_newer_posts_and_a_new_one_moves_none(
    client: Any, user: User, add_posts: AddPosts
) -> None:
    def follow(page: TestResponse, direction: str) -> TestResponse:
        link = re.search(f'rel="{direction}" href="([^"]+)"', page.text)
        assert link
        response: TestResponse = client.get(link[1])
        return response

    add_posts(user, 12)
    first = client.get("/")
    assert titles(first) == [f"Post {i}" for i in range(12, 2, -1)]
    assert "Newer posts" not in first.text
    add_posts(user, 1)
    second = follow(first, "next")
    assert titles(second) == ["Post 2", "Post 1"]
    assert "Older posts" not in second.text
    assert titles(follow(second, "prev")) == titles(first)


def test_the_index_takes_one_statement_however_many_posts(
    app: Flask, client: Any, user: User, other_user: User, add_posts: AddPosts
) -> None:
    add_posts(user, 5)
    add_posts(other_user, 5)
    statements = []
    with app.app_context():
        engine = svcs.flask.get(Engine)
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert len(titles(client.get("/"))) == 10
    assert len(statements) == 1


def test_a_post_that_is_not_there_is_not_found(client: Any) -> None:
    for number in ("0", "7", "-1", "abc", 10**30):
        assert client.get(f"/posts/{number}").status_code == 404, number


def test_a_written_post_is_shown_to_everybody(app: Flask, client: Any, user: User) -> None:
    assert client.get("/posts/new").location == "/login"
    assert client.log_in("ada").location == "/posts/new"
    response = client.submit("/posts/new", {"title": "Notes", "body": "On the Analytical Engine"})
    assert (response.status_code, response.location) == (302, "/posts/1")
    page = client.get("/posts/1").text
    assert "Your post is published." in page
    assert 'href="/posts/1/edit"' in page
    page = app.test_client().get("/posts/1").text
    assert "<h1>Notes</h1>" in page
    assert "On the Analytical Engine" in page
    assert 'href="/posts/1/edit"' not in page


@pytest.mark.parametrize("path", ["/posts/new", "/posts/1/edit"])
def test_a_bad_post_is_refused_and_what_was_typed_stays(
    app: Flask, logged_in: Any, user: User, add_posts: AddPosts, page_problems: Problems, path: str
) -> None:
    add_posts(user, 1)
    for title, body, message in (
        ("  ", "kept", "Give a title."),
        ("x" * 201, "kept", "at most 200"),
        ("kept", "", "Write something."),
        ("kept", "x" * 20_001, "at most 20,000"),
    ):
        response = logged_in.submit(path, {"title": title, "body": body})
        assert response.status_code == 422
        assert message in response.text
        assert "kept" in response.text
        assert page_problems(response) == []
    post = find(app, 1)
    assert post
    assert post.title == "Post 1"
    assert find(app, 2) is None


def test_the_author_can_change_a_post(logged_in: Any, user: User, add_posts: AddPosts) -> None:
    add_posts(user, 1)
    assert 'value="Post 1"' in logged_in.get("/posts/1/edit").text
    assert logged_in.submit("/posts/1/edit", {"title": "Better", "body": "Text"}).location == "/posts/1"
    page = logged_in.get("/posts/1").text
    assert "<h1>Better</h1>" in page
    assert "· changed <time" in page


def test_the_author_can_delete_a_post_with_the_form(logged_in: Any, user: User, add_posts: AddPosts) -> None:
    add_posts(user, 2)
    assert logged_in.get("/posts/2/delete").status_code == 405
    assert logged_in.post("/posts/2/delete").status_code == 400
    assert titles(logged_in.get("/")) == ["Post 2", "Post 1"]
    assert logged_in.submit("/posts/2/delete", page="/posts/2/edit").location == "/"
    assert titles(logged_in.get("/")) == ["Post 1"]
    assert logged_in.get("/posts/2").status_code == 404


def test_other_users_can_do_neither(app: Flask, logged_in: Any, other_user: User, add_posts: AddPosts) -> None:
    add_posts(other_user, 1)
    assert logged_in.get("/posts/1/edit").status_code == 403
    for path in ("/posts/1/edit", "/posts/1/delete"):
        response = logged_in.submit(path, {"title": "Mine", "body": "now"}, page="/posts/new")
        assert response.status_code == 403
    post = find(app, 1)
    assert post
    assert post.title == "Post 1"


def test_texts_are_shown_and_never_run(app: Flask, logged_in: Any, user: User) -> None:
    with transaction(app) as session:
        session.add(Post(author_id=user.id, title="<script>1</script>", body="</textarea><script>2</script>"))
    for path in ("/", "/posts/1", "/posts/1/edit", "/profile/ada"):
        page = logged_in.get(path).text
        assert "&lt;script&gt;1&lt;/script&gt;" in page
        assert "&lt;script&gt;2&lt;/script&gt;" in page
        assert "<script>" not in page


def test_a_profile_lists_the_latest_posts_of_its_user(
    client: Any, user: User, other_user: User, add_posts: AddPosts
) -> None:
    add_posts(user, 12)
    assert titles(client.get("/profile/ada")) == [f"Post {i}" for i in range(12, 2, -1)]
    assert titles(client.get("/profile/grace")) == []


def test_posts_go_with_their_author(app: Flask, client: Any, user: User, other_user: User, add_posts: AddPosts) -> None:
    add_posts(user, 1)
    add_posts(other_user, 1)
    with transaction(app) as session:
        session.delete(session.get_one(User, user.id))
    assert [find(app, number) is not None for number in (1, 2)] == [False, True]
    assert client.get("/").status_code == 200


def test_pages_have_their_landmarks_and_labels(
    logged_in: Any, user: User, add_posts: AddPosts, page_problems: Problems
) -> None:
    add_posts(user, 12)
    paths = ["/", "/?before=6", "/posts/1", "/posts/new", "/posts/1/edit", "/profile/ada"]
    assert {path: found for path in paths if (found := page_problems(logged_in.get(path)))} == {}
