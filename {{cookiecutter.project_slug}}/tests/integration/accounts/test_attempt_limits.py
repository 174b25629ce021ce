"""How often one address may try."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

LIMITS = {"APP_SECURITY__RATE_LIMITS__LOGIN": "2 per minute", "APP_SECURITY__RATE_LIMITS__REGISTER": "2 per hour"}


@pytest.mark.parametrize(("path", "window"), [("/login", 60), ("/register", 3600)])
def test_too_many_attempts_of_an_address_are_refused_for_a_while_by_all_instances(
    make_app: Callable[..., Flask], path: str, window: int
) -> None:
    client: Any = make_app(**LIMITS).test_client()
    another: Any = make_app(**LIMITS).test_client()
    assert [client.submit(path).status_code for _ in range(3)] == [422, 422, 429]
    refused = another.submit(path)
    assert 0 < int(refused.headers["Retry-After"]) <= window
    assert "Too many attempts. Please wait a while, then try again." in refused.text
    assert client.get(path).status_code == 200
    client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    assert client.submit(path).status_code == 422


def test_all_addresses_of_a_machine_count_as_one(make_app: Callable[..., Flask]) -> None:
    client: Any = make_app(**LIMITS).test_client()

    def status(address: str) -> int:
        client.environ_base["REMOTE_ADDR"] = address
        return int(client.submit("/login").status_code)

    assert [status(f"2001:db8::{number}:1") for number in range(3)] == [422, 422, 429]
    assert status("2001:db8:0:1::1") == 422
    assert [status(address) for address in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1")] == [422, 422, 429]
