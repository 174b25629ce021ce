"""The page of administrators, as they see and use it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Page, expect

from app.accounts import User
from app.services import transaction
from database.job_counts import JobCount
from tests.conftest import PASSWORD

pytestmark = pytest.mark.slow


@pytest.fixture
def admin(app: Flask, user: User) -> User:
    """The user ada, who is an administrator, after a day of work."""
    with transaction(app) as session:
        session.get_one(User, user.id).is_admin = True
        for age in range(24):
            hour = int(time.time()) // 3600 * 3600 - age * 3600
            session.add(JobCount(hour=hour, actor="make_picture", outcome="done", jobs=1000 - age))
            if age % 6 == 0:
                session.add(JobCount(hour=hour, actor="send_newsletter", outcome="failed", jobs=1))
    return user


@pytest.fixture
def ops(page: Page, admin: User) -> Page:
    """The page, opened by ada."""
    page.goto("/login")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
    return page


def test_the_chart_is_drawn_and_its_numbers_can_be_read(ops: Page) -> None:
    expect(ops.get_by_role("img", name="Jobs per hour")).to_be_visible()
    bars = {kind: ops.locator(f"rect.{kind}") for kind in ("done", "failed")}
    # The oldest hour is gone if another one has begun meanwhile.
    assert bars["done"].count() >= 23
    assert bars["failed"].count() >= 3
    assert len({bar.first.evaluate("e => getComputedStyle(e).fill") for bar in bars.values()}) == 2
    # One failed job among a thousand can be seen.
    assert all(bar.evaluate("e => e.getBoundingClientRect().height") >= 2 for bar in bars["failed"].all())
    numbers = ops.get_by_role("region", name="Jobs per hour")
    expect(numbers).to_be_hidden()
    ops.get_by_text("Numbers by hour").click()
    expect(numbers.get_by_role("row")).to_have_count(25)


def test_with_a_server_for_the_queue_it_says_where_to_look(make_app: Callable[..., Flask], admin: User) -> None:
    client: Any = make_app(QUEUE_URL="amqp://nowhere.invalid").test_client()
    client.log_in("ada")
    page = client.get("/ops").text
    assert "Jobs wait in RabbitMQ" in page
    assert "/cancel" not in page
    assert "make_picture" in page
