"""What the tests of the page of administrators share."""

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from flask import Flask

from app.accounts import User
from app.services import transaction
from tests.conftest import Browser


@pytest.fixture
def admin(logged_in: Browser, app: Flask, user: User) -> Browser:
    """A browser that ada is logged in on, who is an administrator."""
    with transaction(app) as session:
        session.get_one(User, user.id).is_admin = True
    return logged_in


@pytest.fixture
def fragile(app: Flask) -> Iterator[dramatiq.Actor[[str], None]]:
    """A job that fails because of what it is sent; it is done if that is nothing."""

    @dramatiq.actor(max_retries=0)
    def fragile(problem: str = "") -> None:
        if problem:
            raise ValueError(problem)

    yield fragile
    del dramatiq.get_broker().actors["fragile"]


@pytest.fixture
def claimed(app: Flask, fragile: Any) -> Iterator[str]:
    """The id of a job that a worker has claimed."""
    message_id: str = fragile.send().message_id
    consumer = dramatiq.get_broker().consume("default", prefetch=1)
    assert next(consumer)
    yield message_id
    consumer.close()
