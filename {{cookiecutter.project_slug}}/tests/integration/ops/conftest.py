"""What the tests of the page of administrators share."""

import threading
from collections.abc import Iterator

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
def running(app: Flask) -> Iterator[str]:
    """The id of a job that a worker runs; jobs in other queues wait."""
    begun, may_end = threading.Event(), threading.Event()

    @dramatiq.actor(actor_name="test_wait", queue_name="slow")
    def wait() -> None:
        begun.set()
        may_end.wait(60)

    broker = dramatiq.get_broker()
    message_id = wait.send().message_id
    worker = dramatiq.Worker(broker, queues={"slow"}, worker_timeout=10, worker_threads=1)
    worker.start()
    assert begun.wait(60)
    yield message_id
    may_end.set()
    worker.stop()
    del broker.actors["test_wait"]
