"""The page of administrators while the queue is in Redis."""

import html
import re
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from flask import Flask

from database import queue_admin
from database.outbox import OutboxBroker
from tests.servers import Redis

pytestmark = pytest.mark.slow


@pytest.fixture
def app(make_app: Callable[..., Flask], redis_url: str) -> Flask:
    """The service with its queue in Redis."""
    return make_app(QUEUE_URL=redis_url)


@pytest.fixture
def sent(app: Flask) -> str:
    """The id of a message that waits on the server."""
    broker = dramatiq.get_broker()
    assert isinstance(broker, OutboxBroker)
    message = broker.enqueue(dramatiq.Message("default", "job", (), {}, {}))
    messages, _ = broker.table.claim("default", 1)
    broker.pass_on(messages)
    assert [found.row for found in queue_admin.find(broker, message.message_id)] == [None]
    return message.message_id


def test_what_waits_on_the_server_is_shown_and_cancelled(admin: Any, sent: str) -> None:
    assert f'action="/ops/jobs/{sent}/cancel"' in admin.get("/ops").text
    admin.submit(f"/ops/jobs/{sent}/cancel", page="/ops")
    page = admin.get("/ops").text
    assert "job is cancelled." in page
    assert sent not in page


def test_without_the_server_the_page_says_so_and_shows_the_rest(admin: Any, sent: str, redis_server: Redis) -> None:
    redis_server.stop()
    response = admin.get("/ops")
    page = html.unescape(response.text)
    assert response.status_code == 200
    assert "The queue's server cannot be reached" in page
    assert re.search(r"<dt>queue</dt>\s*<dd class=\"wrong\">failed: ", page)
    assert redis_server.password not in page
    assert "Disk space" in page
    assert admin.submit(f"/ops/jobs/{sent}/cancel", page="/ops").location == "/ops"
    assert "cannot be reached; nothing was changed." in html.unescape(admin.get("/ops").text)
    redis_server.start()
    assert sent in admin.get("/ops").text
