"""The queue as a feature uses it: jobs that are sent in a transaction, later, and that are tried again."""

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import svcs
from flask import Flask
from sqlalchemy.orm import Session

from app.accounts import User
from app.services import transaction
from database import queue_admin

ran: list[str] = []


@pytest.fixture
def greet(app: Flask) -> Iterator[Any]:
    """A job that greets a user, and fails at the first try."""

    # No feature's own actor may have this name.
    @dramatiq.actor(actor_name="test_greet", max_retries=1, min_backoff=1, max_backoff=1)
    def greet(user_id: int) -> None:
        ran.append(svcs.flask.get(Session).get_one(User, user_id).username)
        if len(ran) == 1:
            raise ConnectionError

    yield greet
    ran.clear()
    del dramatiq.get_broker().actors["test_greet"]


def states(app: Flask) -> list[str]:
    with transaction(app) as session:
        return [state for _, state in queue_admin.listed(session, None, 10)]


def test_a_job_is_sent_with_the_row_that_it_is_about_and_tried_again(
    app: Flask, greet: Any, work: Callable[[], int]
) -> None:
    with transaction(app) as session:
        user = User(username="ada", email="-", password_hash="-")
        session.add(user)
        session.flush()
        greet.send(user.id)
    assert states(app) == ["waiting"]
    assert work() == 0
    assert ran == ["ada", "ada"]
    assert states(app) == []


def test_a_job_of_a_transaction_that_fails_is_not_sent(app: Flask, greet: Any) -> None:
    with pytest.raises(AttributeError), transaction(app):
        greet.send(1).wrong()
    assert states(app) == []


def test_a_delayed_job_waits(app: Flask, greet: Any, user: User) -> None:
    greet.send_with_options(args=(user.id,), delay=60_000)
    assert states(app) == ["delayed"]
