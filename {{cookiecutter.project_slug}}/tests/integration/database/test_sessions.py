"""What a view or a job can rely on: reads hold nobody up, and no order of decorators does."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import svcs
from flask import Flask
from flask_login import login_required
from sqlalchemy.orm import Session

from app.accounts import User
from app.extensions import csrf, rate_limited
from app.services import transaction

PATIENCE = 20


def test_a_request_that_has_only_read_holds_nobody_up(app: Flask, client: Any, user: User, other_user: User) -> None:
    has_read, may_end = threading.Event(), threading.Event()

    @app.post("/slow")
    @csrf.exempt
    @login_required
    def slow() -> str:
        has_read.set()
        return "ok" if may_end.wait(PATIENCE) else "nobody else was served"

    client.log_in(user.username)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.post, "/slow")
        assert has_read.wait(PATIENCE)
        other_client: Any = app.test_client()
        assert other_client.log_in(other_user.username).status_code == 302
        may_end.set()
    assert answer.result().text == "ok"


@pytest.mark.parametrize(
    "decorate",
    [
        lambda view: rate_limited(lambda: "5 per minute")(login_required(view)),
        lambda view: login_required(rate_limited(lambda: "5 per minute")(view)),
    ],
    ids=["limit first", "login first"],
)
def test_a_login_and_a_rate_limit_go_together_in_any_order(
    app: Flask, client: Any, user: User, decorate: Callable[[Callable[[], str]], Callable[[], str]]
) -> None:
    def rename() -> str:
        svcs.flask.get(Session).get_one(User, user.id).email = "new@example.org"
        return "ok"

    app.add_url_rule("/rename", view_func=csrf.exempt(decorate(rename)), methods=["POST"])
    client.log_in(user.username)
    assert [client.post("/rename").status_code for _ in range(6)] == [200] * 5 + [429]
    with transaction(app) as session:
        assert session.get_one(User, user.id).email == "new@example.org"
