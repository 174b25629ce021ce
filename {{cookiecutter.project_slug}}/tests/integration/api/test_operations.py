"""What operations do for every feature."""

from datetime import timedelta
from typing import Annotated, Any

import pytest
from flask import Flask
from msgspec import Meta, Struct
from sqlalchemy import func, select, update

from app.accounts import User
from app.api import Paging, api_blueprint, operation, page_links, remove_ended, require_match
from app.api.models import Answer, Token
from app.paging import requested_page
from app.services import transaction
from database import utc_now


class Word(Struct, forbid_unknown_fields=True):
    text: Annotated[str, Meta(max_length=5)]


@pytest.fixture
def words() -> list[Word]:
    return [Word("tide")]


@pytest.fixture
def api(app: Flask, user: User, other_user: User, words: list[Word]) -> Any:
    """A client of two operations on words, and of a list of users, with a token of ada's that writes."""
    probe = api_blueprint("words", __name__)

    @probe.post("")
    @operation(body=Word, answer=Word, status=201)
    def add(body: Word) -> Word:
        words.append(body)
        return body

    @probe.put("/<int:number>")
    @operation(body=Word, answer=Word)
    def change(number: int, body: Word) -> Word:
        require_match(words[number])
        words[number] = body
        return body

    @probe.get("/users")
    @operation(query=Paging, answer=list[str])
    def users() -> Any:
        page = requested_page(select(User), User.id)
        return [row.username for row in page.rows], page_links(page)

    app.register_blueprint(probe)
    client = app.test_client()
    made = app.test_cli_runner().invoke(args=["token", "add", "ada", "test", "--scope", "write"])
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {made.output.strip()}"
    return client


def test_what_does_not_fit_is_refused(api: Any, words: list[Word]) -> None:
    sent = {'{"text": "too long"}': 422, '{"text": 1}': 422, '{"colour": "red"}': 422, '{"text": ': 400}
    for body, status in sent.items():
        answer = api.post("/api/v1/words", data=body, content_type="application/json")
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), body
    assert api.post("/api/v1/words", data={"text": "ebb"}).status_code == 415
    assert api.get("/api/v1/words/users?before=x").status_code == 422
    assert words == [Word("tide")]


def test_only_what_was_seen_is_changed(api: Any) -> None:
    first = api.post("/api/v1/words", json={"text": "ebb"})
    address, new = "/api/v1/words/1", {"text": "flood"}
    assert api.put(address, json=new).status_code == 428
    changed = api.put(address, json=new, headers={"If-Match": first.headers["ETag"]})
    assert changed.json == new
    assert api.put(address, json=new, headers={"If-Match": first.headers["ETag"]}).status_code == 412


def test_a_list_says_where_its_other_pages_are(api: Any) -> None:
    address = "http://localhost/api/v1/words/users"
    newer, older = api.get(f"{address}?after=1"), api.get(f"{address}?before=2")
    assert (newer.json, newer.headers["Link"]) == (["grace"], f'<{address}?before=2>; rel="next"')
    assert (older.json, older.headers["Link"]) == (["ada"], f'<{address}?after=1>; rel="prev"')
    assert api.get(address, headers={"If-None-Match": api.get(address).headers["ETag"]}).status_code == 304


def test_what_is_sent_again_is_done_once_for_a_day(app: Flask, api: Any, words: list[Word]) -> None:
    def send(text: str) -> Any:
        return api.post("/api/v1/words", json={"text": text}, headers={"Idempotency-Key": "k"})

    assert send("ebb").json == send("ebb").json
    assert words == [Word("tide"), Word("ebb")]
    assert send("flood").status_code == 422
    yesterday = utc_now() - timedelta(days=1, seconds=1)
    with transaction(app) as session:
        session.execute(update(Answer).values(created=yesterday))
        session.execute(update(Token).values(ends=yesterday))
    with transaction(app) as session:
        remove_ended("")
        assert session.scalar(select(func.count()).select_from(Answer)) == 0
    assert send("flood").status_code == 401
