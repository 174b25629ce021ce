"""The page of administrators, as they see and use it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from app.accounts import User
from app.services import transaction
from database.job_counts import JobCount
from tests.conftest import PASSWORD

Accessible = Callable[[Page], list[str]]

pytestmark = pytest.mark.slow


@pytest.fixture
def troubles(app: Flask) -> Iterator[list[str]]:
    """What the job `fragile` fails because of; without any, it is done."""
    found = ["no such thing"]

    @dramatiq.actor(max_retries=0)
    def fragile() -> None:
        if found:
            raise ValueError(found[0])

    yield found
    del dramatiq.get_broker().actors["fragile"]


@pytest.fixture
def send(troubles: list[str]) -> Callable[..., str]:
    """Sends `fragile`; returns the first characters of the message's id, as they are shown."""
    fragile: dramatiq.Actor[..., Any] = dramatiq.get_broker().get_actor("fragile")
    return lambda **options: fragile.send_with_options(**options).message_id[:8]


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


def open_ops(page: Page) -> Page:
    page.goto("/login")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
    return page


@pytest.fixture
def ops(page: Page, admin: User) -> Page:
    """The page, opened by ada."""
    return open_ops(page)


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


def test_a_failed_job_is_retried_and_goes(
    ops: Page, send: Callable[..., str], troubles: list[str], work: Callable[[], int]
) -> None:
    sent = send()
    assert work() == 1
    ops.reload()
    expect(ops.locator("li", has_text=sent).locator("summary")).to_have_text("ValueError: no such thing")
    ops.get_by_role("button", name=f"Retry fragile {sent}").click()
    expect(ops.get_by_role("status")).to_have_text("Jobs that wait again: 1.")
    troubles.clear()
    assert work() == 0
    ops.reload()
    expect(ops.get_by_text(sent)).to_have_count(0)


def test_it_works_without_scripts(browser: Browser, address: str, admin: User, send: Callable[..., str]) -> None:
    sent = send(delay=3_600_000)
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        ops = open_ops(context.new_page())
        ops.get_by_role("button", name=f"Cancel fragile {sent}").click()
        expect(ops.get_by_role("status")).to_have_text("The job is removed.")
        expect(ops.get_by_text(sent)).to_have_count(0)
        ops.get_by_role("button", name="Run now remove_expired", exact=True).click()
        expect(ops.get_by_role("status")).to_have_text("The job remove_expired is sent.")


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone_and_on_a_desk_and_is_accessible(
    ops: Page, send: Callable[..., str], work: Callable[[], int], accessible: Accessible, width: int, scheme: Any
) -> None:
    send()
    work()
    send()
    send(delay=3_600_000)
    ops.set_viewport_size({"width": width, "height": 900})
    ops.emulate_media(color_scheme=scheme)
    ops.reload()
    for summary in ops.locator("summary").all():
        summary.click()
    assert ops.evaluate("document.documentElement.scrollWidth") <= width
    assert accessible(ops) == []


def test_with_a_server_for_the_queue_it_says_where_to_look(make_app: Callable[..., Flask], admin: User) -> None:
    client: Any = make_app(QUEUE_URL="amqp://nowhere.invalid").test_client()
    client.log_in("ada")
    page = client.get("/ops").text
    assert "Jobs wait in RabbitMQ" in page
    assert "/cancel" not in page
    assert "make_picture" in page
