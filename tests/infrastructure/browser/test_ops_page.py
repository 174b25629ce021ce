"""The page of administrators, as they see it."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from flask import Flask
from playwright.sync_api import Page, expect

from app.accounts import User
from app.ops.jobs import remove_expired
from app.services import transaction
from database import utc_now
from database.queue_statistics import QueueMinute
from tests.conftest import PASSWORD

pytestmark = pytest.mark.slow

# Milliseconds after which the page renews itself.
PAUSE = 5000


@pytest.fixture
def troubles(app: Flask) -> Iterator[list[str]]:
    """What the job `fragile` fails because of; without any, it is done."""
    found = ["no such thing"]

    def fragile() -> None:
        if found:
            raise ValueError(found[0])

    dramatiq.actor(max_retries=0)(fragile)
    yield found
    del dramatiq.get_broker().actors["fragile"]


@pytest.fixture
def send(troubles: list[str]) -> Callable[..., str]:
    """Sends `fragile`; returns the first characters of the message's id, as they are shown."""
    fragile: dramatiq.Actor[..., Any] = dramatiq.get_broker().get_actor("fragile")
    return lambda **options: fragile.send_with_options(**options).message_id[:8]


@pytest.fixture
def ops(page: Page, app: Flask, user: User) -> Page:
    """The page, opened by ada, who is an administrator, after an hour of work."""
    this_minute = utc_now().replace(second=0, microsecond=0)
    with transaction(app) as session:
        session.get_one(User, user.id).is_admin = True
        for number in range(60):
            minute = this_minute - timedelta(minutes=number)
            waiting = None if 20 <= number < 30 else abs(30 - number) % 13
            row = QueueMinute(minute=minute, queue="default", waiting=waiting, done=number % 7, failed=number % 3)
            session.add(row)
    page.clock.install()
    log_in(page)
    page.get_by_role("link", name="Operations").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Operations")
    # Until its script has run, there is no timer that the clock could bring forward.
    page.wait_for_load_state()
    return page


def log_in(page: Page) -> None:
    page.goto("/login")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name="ada")).to_be_visible()


def test_charts_are_drawn_and_say_what_they_show(ops: Page) -> None:
    for name in ("Waiting", "Ended"):
        chart = ops.get_by_role("img", name=name)
        expect(chart).to_be_visible()
        expect(chart).to_have_accessible_description(re.compile(r"\d"))
    # The gap of ten minutes parts the line in two.
    assert ops.locator(".chart .line").count() == 2
    # One less, if a minute has begun since.
    assert ops.locator("rect.failed").count() in (39, 40)
    colours = {
        ops.locator(f"rect.{kind}").first.evaluate("e => getComputedStyle(e).fill") for kind in ("done", "failed")
    }
    assert len(colours) == 2


def test_a_failed_job_is_retried_and_goes(
    ops: Page, send: Callable[..., str], troubles: list[str], work: Callable[[], int]
) -> None:
    sent = send()
    assert work() == 1
    ops.reload()
    expect(ops.locator("summary", has_text="ValueError: no such thing")).to_be_visible()
    ops.get_by_role("button", name=f"Retry fragile {sent}").click()
    expect(ops.get_by_text("fragile waits again.")).to_be_visible()
    troubles.clear()
    assert work() == 0
    ops.reload()
    expect(ops.get_by_text(sent)).to_have_count(0)


def test_a_delayed_job_is_cancelled(ops: Page, send: Callable[..., str]) -> None:
    sent = send(delay=3_600_000)
    ops.reload()
    ops.get_by_role("button", name=f"Cancel fragile {sent}").click()
    expect(ops.get_by_text("fragile is cancelled.")).to_be_visible()
    expect(ops.get_by_text(sent)).to_have_count(0)


def test_a_schedule_is_run_now(ops: Page, work: Callable[[], int]) -> None:
    name = remove_expired.actor_name
    ops.get_by_role("button", name=f"Run now {name}", exact=True).click()
    expect(ops.get_by_text(f"{name} is sent for now.")).to_be_visible()
    assert work() == 0
    ops.reload()
    expect(ops.locator(f"#schedule-{name}")).to_contain_text(": done")


def test_it_renews_itself_and_keeps_what_is_open_focused_selected_and_scrolled(
    ops: Page, send: Callable[..., str], work: Callable[[], int]
) -> None:
    first = send()
    work()
    ops.reload()
    row = ops.locator("#jobs ~ .entries li", has_text=first)
    row.locator("summary").click()
    row.get_by_role("button").focus()
    ops.evaluate("scrollTo(0, 300); getSelection().selectAllChildren(document.querySelector('#live pre'))")
    before = ops.evaluate("({y: scrollY, text: getSelection().toString()})")
    assert "Traceback" in before["text"]

    second = send()
    work()
    ops.clock.fast_forward(PAUSE)
    expect(ops.locator("#jobs ~ .entries", has_text=second).first).to_be_visible()
    expect(row.locator("details")).to_have_attribute("open", "")
    expect(row.get_by_role("button")).to_be_focused()
    assert ops.evaluate("getSelection().toString()") == before["text"]
    # The new one is above it: the browser keeps what is read in its place.
    assert ops.evaluate("scrollY") >= before["y"]


def test_it_says_that_the_service_is_gone_and_goes_on_when_it_is_back(
    ops: Page, send: Callable[..., str], complaints: list[str]
) -> None:
    stale = ops.get_by_text("The service does not answer.")
    expect(stale).to_be_hidden()
    ops.route("**/ops", lambda route: route.fulfill(status=503))
    ops.clock.fast_forward(PAUSE)
    expect(stale).to_be_visible()
    ops.unroute("**/ops")
    sent = send(delay=3_600_000)
    ops.clock.fast_forward(PAUSE)
    expect(ops.get_by_text(sent)).to_be_visible()
    expect(stale).to_be_hidden()
    assert all("503" in complaint for complaint in complaints)
    complaints.clear()


def test_whoever_is_logged_out_meanwhile_is_asked_to_log_in(ops: Page) -> None:
    ops.context.clear_cookies()
    ops.clock.fast_forward(PAUSE)
    expect(ops.get_by_role("heading", level=1)).to_have_text("Log in")


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone_and_on_a_desk(
    ops: Page, send: Callable[..., str], work: Callable[[], int], width: int, scheme: Any
) -> None:
    send()
    work()
    send(delay=3_600_000)
    ops.set_viewport_size({"width": width, "height": 900})
    ops.emulate_media(color_scheme=scheme)
    ops.reload()
    expect(ops.locator("summary", has_text="ValueError: no such thing")).to_be_visible()
    assert ops.evaluate("document.documentElement.scrollWidth") <= width


def test_it_works_without_scripts(browser: Any, ops: Page, send: Callable[..., str]) -> None:
    send(delay=3_600_000)
    state = ops.context.storage_state()
    with browser.new_context(base_url=ops.url, java_script_enabled=False, storage_state=state) as context:
        page = context.new_page()
        page.goto("/ops")
        page.get_by_role("button", name="Cancel fragile").click()
        expect(page.get_by_text("fragile is cancelled.")).to_be_visible()
        assert 'http-equiv="refresh"' in page.content()


def test_for_everybody_else_it_is_not_there(page: Page, user: User) -> None:
    log_in(page)
    expect(page.get_by_role("link", name="Operations")).to_have_count(0)
    assert page.request.get("/ops").status == 404
