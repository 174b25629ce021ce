"""Guessing, filling the disk, and what is noted about it."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from flask import Flask

from app.accounts import User
from app.accounts.passwords import turns
from config import Settings
from tests.conftest import PASSWORD
from tests.infrastructure.conftest import needs_blog

MakeApp = Callable[..., Flask]
WRONG = "not the one that it is"


def guess(client: Any, number: int, password: str = WRONG, name: str = "ada") -> int:
    """The status for an attempt from an address of its own."""
    client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
    return int(client.log_in(name, password).status_code)


def test_many_addresses_cannot_guess_at_one_account_and_its_owner_gets_in(make_app: MakeApp, user: User) -> None:
    app = make_app(APP_SECURITY__RATE_LIMITS__ACCOUNT="5 per hour")
    owner: Any = app.test_client()
    others: Any = app.test_client()
    owner.log_in("ada")
    owner.submit("/logout")
    # The first time, the owner was one of them.
    assert [guess(others, number) for number in range(5)] == [422] * 4 + [429]
    assert guess(others, 7, PASSWORD) == 429
    # Spelt in another way, it is the same account; another one is not.
    assert guess(others, 8, name=" ADA ") == 429
    assert guess(others, 9, name="grace") == 422
    assert guess(owner, 10, PASSWORD) == 302


def test_as_many_hashes_as_may_be_leave_the_other_pages_alone(client: Any, user: User) -> None:
    with ExitStack() as stack:
        while turns.acquire(blocking=False):
            stack.callback(turns.release)
        for path, fields in (("/login", {}), ("/register", {"email": "grace@example.org"})):
            busy = client.submit(path, {"username": "grace", "password": PASSWORD, **fields})
            assert busy.status_code == 503
            assert int(busy.headers["Retry-After"]) > 0
        assert client.get("/").status_code == 200
    assert client.log_in("ada").status_code == 302


def test_what_happens_to_accounts_is_noted_with_account_and_address(client: Any, settings: Settings) -> None:
    fields = {"username": "ada", "email": "ada@example.org", "password": PASSWORD}
    client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    client.submit("/register", fields)
    client.submit("/logout")
    client.log_in("ada", WRONG)
    client.log_in("ada")
    lines = [json.loads(line) for line in (settings.app_dir.path / "logs/audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["user"], line.get("account"), line["address"]) for line in lines] == [
        ("user.register", "ada", None, "192.0.2.1"),
        ("user.logout", "ada", None, "192.0.2.1"),
        ("user.login_failed", None, "ada", "192.0.2.1"),
        ("user.login", "ada", None, "192.0.2.1"),
    ]
    client.environ_base["REMOTE_ADDR"] = "127.0.0.1"
    numbers = client.get("/metrics").text
    assert 'audited_total{action="user.login_failed"} 1.0' in numbers


def test_an_account_that_cannot_be_stored_is_not_noted(client: Any, settings: Settings, commit_fails: Any) -> None:
    with commit_fails:
        fields = {"username": "ada", "email": "ada@example.org", "password": PASSWORD}
        assert client.submit("/register", fields).status_code == 503
    assert not (settings.app_dir.path / "logs/audit.jsonl").exists()


@needs_blog
def test_an_account_has_limits_and_quotas_from_whatever_address(make_app: MakeApp, user: User) -> None:
    limits = {"APP_BLOG__POST_LIMIT": "4 per hour", "APP_BLOG__MOST_POSTS": "3"}
    app = make_app(**limits, APP_SECURITY__MOST_TRANSFERS="2")
    client: Any = app.test_client()
    client.log_in("ada")
    statuses = []
    for number in range(5):
        client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        statuses.append(client.submit("/posts/new", {"title": "a", "body": "b"}).status_code)
    assert statuses == [302, 302, 302, 403, 429]
    exported = [client.submit("/posts/export", page="/profile/ada").status_code for _ in range(3)]
    assert exported == [302, 302, 403]
