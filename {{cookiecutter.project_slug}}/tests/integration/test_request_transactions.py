"""A request that succeeds keeps what it wrote; one that does not leaves nothing; one that reads cannot write."""

from collections.abc import Callable
from typing import Any

import pytest
import svcs
from flask import Flask, abort, redirect
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app.accounts import User
from app.jobs import remove_expired
from app.services import current_session, transaction
from database import sessions
from database.broker import QueueMessage

ANSWERS: dict[str, tuple[Callable[[], Any], bool]] = {
    "page": (lambda: "ok", True),
    "redirect": (lambda: redirect("/"), True),
    "refusal": (lambda: ("no", 422), False),
    "abort": (lambda: abort(404), False),
    "mistake": (lambda: 1 / 0, False),
}


@pytest.fixture
def app(app: Flask) -> Flask:
    """The service with a path that stores a user, sends a job, and then answers as its last part says."""
    app.config.update(PROPAGATE_EXCEPTIONS=False, WTF_CSRF_ENABLED=False)

    @app.route("/write/<answer>", methods=["GET", "POST"])
    def write(answer: str) -> Any:
        svcs.flask.get(Session).add(User(username="ada", email="-", password_hash="-"))
        remove_expired.send("slot")
        answer_it, _ = ANSWERS[answer]
        return answer_it()

    return app


def stored(app: Flask) -> tuple[int, ...]:
    """How many users and jobs there are."""
    with transaction(app) as session:
        return tuple(session.scalars(select(func.count()).select_from(kind)).one() for kind in (User, QueueMessage))


@pytest.mark.parametrize("answer", ANSWERS)
def test_rows_and_jobs_are_kept_only_by_a_request_that_succeeds(app: Flask, client: Any, answer: str) -> None:
    client.post(f"/write/{answer}")
    _, kept = ANSWERS[answer]
    assert stored(app) == ((1, 1) if kept else (0, 0))


def test_a_request_that_reads_cannot_write_and_the_log_says_so(
    app: Flask, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/write/page").status_code == 500
    assert stored(app) == (0, 0)
    assert "a GET only reads" in caplog.text


def test_a_request_that_reads_can_write_in_a_transaction_of_its_own(app: Flask, client: Any) -> None:
    @app.get("/seen")
    def seen() -> str:
        with transaction(app) as session:
            session.add(User(username="ada", email="-", password_hash="-"))
        return "ok"

    assert client.get("/seen").status_code == 200
    assert stored(app) == (1, 0)


def test_a_reader_does_not_wait_for_a_writer(app: Flask, client: Any, user: User) -> None:
    with app.app_context():
        engine = svcs.flask.get(Engine)
    with sessions(engine)() as writer:
        writer.add(User(username="grace", email="-", password_hash="-"))
        writer.flush()
        assert client.get("/profile/ada").status_code == 200
        assert client.get("/profile/grace").status_code == 404


def test_there_is_no_session_outside_of_requests_jobs_and_transactions(app: Flask) -> None:
    assert current_session() is None
    with transaction(app) as session:
        assert current_session() is session
    with app.test_request_context():
        assert current_session() is svcs.flask.get(Session)
    assert current_session() is None
