"""All pages, from registration to logout: for every eye, and with neither mouse nor scripts."""

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


def broken() -> str:
    raise ValueError


@pytest.fixture
def service(app: Flask, work: Callable[[], int], fragile: dramatiq.Actor[[str], None], tmp_path: Path) -> Service:
    """The service, with files to upload; `wrong.csv` has a mistake in each row."""
    (tmp_path / "wrong.csv").write_text("title,body\n,x\nb,\n")
    (tmp_path / "posts.csv").write_text("title,body\n" + "".join(f"Note {row},Text\n" for row in range(ROWS)))
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "picture.png")
    return Service(app, work, fragile, tmp_path)


def test_no_page_has_a_fault_on_any_screen(page: Page, service: Service, client: Any) -> None:
    # With those of accounts and of operations, these are seven.
    names = ("Write", "Bookmarks", "Quarterly targets", "Spare parts")
    links = {"blog/_nav.html": "".join(f'<a href="/posts/new">{name}</a>\n' for name in names)}
    loader = service.app.jinja_env.loader
    assert loader
    service.app.jinja_env.loader = ChoiceLoader([DictLoader(links), loader])
    service.app.add_url_rule("/broken", "broken", broken)
    service.app.config["PROPAGATE_EXCEPTIONS"] = False
    hand = Hand(page)
    found = {name: wrong for name in walk(hand, service) if (wrong := faults(page))}
    for path, heading in {"/nowhere": "Not Found", "/broken": "Internal Server Error"}.items():
        page.goto(path)
        expect(page.get_by_role("heading")).to_have_text(heading)
        found |= {heading: wrong} if (wrong := faults(page)) else {}
    for _ in range(10):
        client.log_in("nobody", "no idea")
    page.goto("/login")
    for _ in range(11):  # Another minute may begin, whose limit is not reached yet.
        hand.press("Log in")
        if page.get_by_role("heading").inner_text() == "Too Many Requests":
            break
    expect(page.get_by_role("heading")).to_have_text("Too Many Requests")
    found |= {"too many": wrong} if (wrong := faults(page)) else {}
    assert found == {}


@pytest.mark.parametrize("scripts", [False])
def test_neither_a_mouse_nor_scripts_are_needed(page: Page, service: Service) -> None:
    hand = Keyboard(page)
    page.goto("/login")
    hand.click(page.get_by_role("link", name="Skip to content"))
    page.keyboard.press("Tab")
    expect(page.get_by_label("User name")).to_be_focused()
    assert list(walk(hand, service))
