"""How often one address may try."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

LIMITS = {"APP_SECURITY__RATE_LIMITS__LOGIN": "2 per minute", "APP_SECURITY__RATE_LIMITS__REGISTER": "2 per hour"}


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(**LIMITS)


@pytest.mark.parametrize(("path", "window"), [("/login", 60), ("/register", 3600)])
def test_too_many_attempts_are_refused_for_a_while(client: Any, path: str, window: int) -> None:
    assert [client.submit(path).status_code for _ in range(3)] == [422, 422, 429]
    refused = client.submit(path)
    assert 0 < int(refused.headers["Retry-After"]) <= window
    assert "Too Many Requests" in refused.text
    assert client.get(path).status_code == 200


def test_another_address_is_not_held_up(client: Any) -> None:
    for _ in range(3):
        client.submit("/login")
    client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert client.submit("/login").status_code == 422


def test_instances_on_one_database_count_together(make_app: Callable[..., Flask], client: Any) -> None:
    client.submit("/login")
    client.submit("/login")
    another: Any = make_app(**LIMITS).test_client()
    assert another.submit("/login").status_code == 429
