"""Whose attempts are counted together: what a client says of itself changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

MakeApp = Callable[..., Flask]
LIMIT = {"APP_SECURITY__RATE_LIMITS__LOGIN": "2 per minute"}
# What proxies and content networks write, and what clients hope that it is believed.
CLAIMS = ["X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP"]
CLAIMS += ["X-Cluster-Client-IP", "Client-IP", "Via", "X-Forwarded", "X-Originating-IP", "X-Remote-Addr"]


def statuses(app: Flask, *requests: dict[str, str], address: str = "192.0.2.1") -> list[int]:
    """What each of these attempts to log in answers; 429 if it was one too many."""
    client: Any = app.test_client()
    client.environ_base["REMOTE_ADDR"] = address
    answers = []
    for headers in requests:
        client.environ_base |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
        answers.append(int(client.submit("/login").status_code))
    return answers


@pytest.mark.parametrize("proxies", [0, 1])
def test_no_header_of_a_client_makes_it_another_one(make_app: MakeApp, proxies: int) -> None:
    """Behind a proxy, the last address of X-Forwarded-For is the proxy's own word; all before it are the client's."""
    app = make_app(**LIMIT, APP_WEB__TRUSTED_PROXIES=str(proxies))

    def claim(name: str, address: str) -> dict[str, str]:
        value = f'for="[{address}]"' if name == "Forwarded" else address
        if not proxies:
            return {name: value}
        return {"X-Forwarded-For": "192.0.2.1", name: f"{value}, 192.0.2.1" if name == "X-Forwarded-For" else value}

    claims = [claim(name, address) for number, name in enumerate(CLAIMS) for address in claimed(number)]
    found = statuses(app, *claims)
    assert found == [422, 422] + [429] * (len(claims) - 2)


def claimed(number: int) -> tuple[str, str]:
    return f"203.0.113.{number}", f"2001:db8:{number:x}::1"


def test_behind_a_proxy_visitors_count_apart_and_by_what_they_have(make_app: MakeApp) -> None:
    app = make_app(**LIMIT, APP_WEB__TRUSTED_PROXIES="1")

    def from_each(*addresses: str) -> list[int]:
        return statuses(app, *({"X-Forwarded-For": address} for address in addresses), address="127.0.0.1")

    assert from_each(*["192.0.2.1"] * 3, "192.0.2.2") == [422, 422, 429, 422]
    assert from_each("2001:db8::1", "2001:DB8:0:0:ffff::2", "2001:db8:0::3", "2001:db8:0:1::1") == [422, 422, 429, 422]
    assert from_each("::ffff:192.0.2.9", "::FFFF:c000:209", "192.0.2.9") == [422, 422, 429]


def test_a_restart_forgets_nothing(make_app: MakeApp) -> None:
    assert [statuses(make_app(**LIMIT), {}) for _ in range(3)] == [[422], [422], [429]]
