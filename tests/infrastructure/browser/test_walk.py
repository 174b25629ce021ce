"""All pages, from registration to logout: for every eye, with the keyboard alone, and without scripts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from flask import Flask
from jinja2 import ChoiceLoader, DictLoader
from PIL import Image
from playwright.sync_api import Page, expect

from tests.infrastructure.browser.faults import faults
from tests.infrastructure.browser.walk import ROWS, Hand, Keyboard, Service, walk
from tests.infrastructure.conftest import needs_blog

pytestmark = [pytest.mark.slow, needs_blog]


@pytest.fixture
def service(
    app: Flask, work: Callable[[], int], fragile: dramatiq.Actor[[str], None], tmp_path: Path
) -> Service:
    """The service, with files to upload; `wrong.csv` has a mistake in each row."""
    (tmp_path / "wrong.csv").write_text("title,body\n,x\nb,\n")
    (tmp_path / "posts.csv").write_text("title,body\n" + "".join(f"Note {row},Text\n" for row in range(ROWS)))
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "picture.png")
    return Service(app, work, fragile, tmp_path)


def test_the_keyboard_is_enough_and_no_page_has_a_fault(page: Page, service: Service, client: Any) -> None:
    # With those of accounts and of operations, these are seven.
    names = ("Write", "Bookmarks", "Quarterly targets", "Spare parts")
    links = {"blog/_nav.html": "".join(f'<a href="/posts/new">{name}</a>\n' for name in names)}
    loader = service.app.jinja_env.loader
    assert loader
    service.app.jinja_env.loader = ChoiceLoader([DictLoader(links), loader])
    service.app.add_url_rule("/broken", "broken", lambda: 1 / 0)
    service.app.config["PROPAGATE_EXCEPTIONS"] = False
    hand = Keyboard(page)
    found = {name: wrong for name in walk(hand, service) if (wrong := faults(page))}

    hand.follow("Log in")
    hand.click(page.get_by_role("link", name="Skip to content"))
    page.keyboard.press("Tab")
    expect(page.get_by_label("User name")).to_be_focused()
    for _ in range(10):
        client.log_in("nobody", "no idea")
    hand.press("Log in")
    for path, heading in {"": "Too Many Requests", "/nowhere": "Not Found", "/broken": "Internal Server Error"}.items():
        if path:
            page.goto(path)
        expect(page.get_by_role("heading")).to_have_text(heading)
        found |= {heading: wrong} if (wrong := faults(page)) else {}
    assert found == {}


@pytest.mark.parametrize("scripts", [False])
def test_no_script_is_needed(page: Page, service: Service) -> None:
    assert list(walk(Hand(page), service))
