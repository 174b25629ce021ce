"""A way through all pages of the service, for the tests of this folder: from registration to logout."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dramatiq
from flask import Flask
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select, update

from app.accounts import User
from app.services import transaction
from app.transfers import Transfer
from tests.conftest import PASSWORD

# As long as a name may be.
NAME = "quite_a_long_name_for_an_admin"
# One row more than a page of posts has, two with the one that is written by hand.
ROWS = 10


@dataclass
class Hand:
    """What people do with a page, with a mouse."""

    page: Page

    def click(self, target: Locator) -> None:
        target.click()

    def fill(self, label: str, text: str) -> None:
        self.page.get_by_label(label, exact=True).fill(text)

    def choose(self, label: str, file: Path) -> None:
        self.page.get_by_label(label, exact=True).set_input_files(file)

    def follow(self, name: str) -> None:
        """Open the page of the first link of this name."""
        with self.page.expect_navigation():
            self.click(self.page.get_by_role("link", name=name, exact=True).first)

    def press(self, name: str) -> None:
        """Send the form of a button."""
        with self.page.expect_navigation():
            self.click(self.page.get_by_role("button", name=name, exact=True))


# What can be known of the element that has the focus: where it is in the page, and whether it can be seen.
FOCUS = """target => {
  const element = document.activeElement, box = element.getBoundingClientRect(), [line] = element.getClientRects();
  const y = Math.max(0, Math.min((line.top + line.bottom) / 2, innerHeight - 1)), style = getComputedStyle(element);
  return {
    reached: element === target,
    left: element === document.body,
    name: element.outerHTML.slice(0, 100),
    top: box.top + scrollY,
    bottom: box.bottom + scrollY,
    shown: element.contains(document.elementFromPoint((line.left + line.right) / 2, y)),
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
  };
}"""


class Keyboard(Hand):
    """The same with nothing but the keyboard, by the order of Tab, in which each focus is seen below the last one."""

    def click(self, target: Locator) -> None:
        self.reach(target)
        self.page.keyboard.press("Enter")

    def fill(self, label: str, text: str) -> None:
        self.reach(self.page.get_by_label(label, exact=True))
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(text)

    def choose(self, label: str, file: Path) -> None:
        self.reach(self.page.get_by_label(label, exact=True))
        super().choose(label, file)  # The dialog is the browser's own.

    def reach(self, target: Locator) -> None:
        above = 0
        for _ in range(100):
            self.page.keyboard.press("Tab")
            focus = target.evaluate(FOCUS)
            if focus["left"]:
                above = 0
                continue
            assert focus["shown"], f"the focus is out of sight on {focus['name']}"
            assert focus["marked"], f"the focus cannot be seen on {focus['name']}"
            assert focus["bottom"] > above, f"Tab goes up to {focus['name']}"
            above = focus["top"]
            if focus["reached"]:
                return
        raise AssertionError(f"100 times Tab do not lead to {target}")


@dataclass
class Service:
    """The service, its worker, and files to upload."""

    app: Flask
    work: Callable[[], int]
    fragile: dramatiq.Actor[[str], None]
    files: Path


def walk(hand: Hand, service: Service) -> Iterator[str]:
    """Do all that can be done; yields a name for each page that is seen on the way."""
    for part in (account, posts, picture, tokens, transfers, operations, logout):
        yield from part(hand, service)


def account(hand: Hand, service: Service) -> Iterator[str]:
    page = hand.page
    page.goto("/")
    yield "front page without posts"
    hand.follow("Register")
    hand.press("Register")
    expect(page.locator(".wrong")).to_have_count(3)
    yield "register, refused"
    hand.fill("User name", NAME)
    hand.fill("Email", "ada@example.org")
    hand.fill("Password", PASSWORD)
    hand.press("Register")
    expect(page.get_by_role("status")).to_contain_text(f"Welcome, {NAME}.")
    with transaction(service.app) as session:
        session.scalars(select(User)).one().is_admin = True
    hand.follow("Log out")
    hand.press("Log out")
    expect(page.get_by_role("status")).to_have_text("You are logged out.")
    hand.follow("Log in")
    hand.fill("User name", NAME)
    hand.fill("Password", "no idea")
    hand.press("Log in")
    expect(page.get_by_text("User name or password is wrong.")).to_be_visible()
    yield "log in, refused"
    hand.fill("Password", PASSWORD)
    hand.press("Log in")


def posts(hand: Hand, service: Service) -> Iterator[str]:
    page = hand.page
    hand.follow("Write the first post")
    hand.press("Publish")
    expect(page.locator(".wrong")).to_have_count(2)
    yield "write, refused"
    hand.fill("Title", "A loom")
    hand.fill("Text", "It counts.\n\n  10 PRINT")
    hand.press("Publish")
    expect(page.get_by_role("status")).to_have_text("Your post is published.")
    yield "a post"
    hand.follow("Edit")
    hand.fill("Title", "A loom that counts and " + "w" * 80)
    hand.press("Save")
    expect(page.get_by_role("heading", level=1)).to_contain_text("A loom that counts")
    hand.follow("Edit")
    hand.click(page.get_by_text("Delete this post"))
    yield "edit"
    hand.press("Delete for good")
    expect(page.get_by_role("status")).to_have_text("Your post is deleted.")
    expect(page.get_by_text("There is nothing to read here yet.")).to_be_visible()


def picture(hand: Hand, service: Service) -> Iterator[str]:
    page = hand.page
    hand.follow(NAME)
    yield "one's profile"
    hand.follow("Your account")
    yield "account"
    hand.follow("Change your password")
    hand.press("Change it")
    expect(page.locator(".wrong")).to_have_count(2)
    yield "new password, refused"
    hand.follow("Cancel")
    hand.follow(NAME)
    hand.follow("Change your picture")
    hand.choose("Picture", service.files / "wrong.csv")
    hand.press("Upload")
    expect(page.locator(".wrong")).to_have_count(1)
    yield "picture, refused"
    hand.choose("Picture", service.files / "picture.png")
    hand.press("Upload")
    expect(page.get_by_role("status")).to_have_text("Your new picture will be here in a moment.")
    service.work()
    page.reload()
    expect(page.locator("img.avatar")).to_be_visible()
    assert page.locator("img.avatar").evaluate("image => image.decode().then(() => image.naturalWidth)")
    hand.follow("Change your picture")
    yield "picture"


def tokens(hand: Hand, service: Service) -> Iterator[str]:
    page = hand.page
    hand.follow("Cancel")
    hand.follow("What the API can do")
    yield "the API"
    hand.follow(NAME)
    hand.follow("New token")
    hand.press("Make it")
    yield "token, refused"
    hand.fill("What it is for", "weekly report")
    hand.press("Make it")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your new token")
    yield "token"
    hand.follow("Back to your profile")
    yield "one's profile with a token"
    hand.press("End weekly report")
    expect(page.get_by_role("status")).to_have_text("The token weekly report has ended.")


def transfers(hand: Hand, service: Service) -> Iterator[str]:
    page = hand.page
    hand.follow("Import from a CSV file")
    hand.press("Import")
    expect(page.get_by_text("Choose a file.")).to_be_visible()
    yield "import, refused"
    hand.choose("CSV file", service.files / "wrong.csv")
    hand.press("Import")
    service.work()
    expect(page.get_by_role("row")).to_have_count(3)
    yield "import with mistakes"
    hand.follow("Write")
    hand.follow("Import them from a CSV file")
    hand.choose("CSV file", service.files / "posts.csv")
    hand.press("Import")
    expect(page.get_by_role("status")).to_have_text("Waiting …")
    yield "import that waits"
    with transaction(service.app) as session:
        session.execute(update(Transfer).where(Transfer.state == "waiting").values(state="running", done=4))
    # Scripts ask for it; without scripts, the page loads itself again.
    expect(page.get_by_text(f"4 of {ROWS}")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Running …")
    service.work()
    expect(page.get_by_text(f"Done: {ROWS} rows.")).to_be_visible()
    yield "import that is done"
    hand.follow("Write")
    hand.fill("Title", "One more")
    hand.fill("Text", "It is on the next page.")
    hand.press("Publish")
    hand.follow(page.title().rpartition(" · ")[2])
    expect(page.get_by_role("article")).to_have_count(10)
    hand.follow("Older posts")
    expect(page.get_by_role("article")).to_have_count(1)
    hand.follow("Newer posts")
    yield "front page with posts"
    hand.follow(NAME)
    yield "profile with posts"
    hand.press("Export all to a CSV file")
    service.work()
    expect(page.get_by_text(f"Done: {ROWS + 1} rows.")).to_be_visible()
    yield "export"
    with page.expect_download() as download:
        hand.click(page.get_by_role("link", name="Download posts-"))
    assert "It is on the next page." in download.value.path().read_text()


def operations(hand: Hand, service: Service) -> Iterator[str]:
    page = hand.page
    sent: list[Any] = [service.fragile.send("no such thing") for _ in range(2)]
    service.work()
    service.fragile.send_with_options(args=("later",), delay=7_200_000)
    page.reload()
    hand.follow("Operations")
    hand.follow("Mail")
    expect(page.get_by_text("Confirm your address")).to_be_visible()
    yield "mails"
    hand.follow("Operations")
    for summary in page.locator("summary").all():
        hand.click(summary)
    yield "operations"
    about = f"test_fragile {sent[0].message_id[:8]}"
    hand.press(f"Retry {about}")
    expect(page.get_by_role("status")).to_have_text("Jobs that wait again: 1.")
    hand.press(f"Cancel {about}")
    expect(page.get_by_role("status")).to_have_text("The job is removed.")
    expect(page.get_by_text(sent[0].message_id[:8])).to_have_count(0)
    hand.press("Run now remove_expired")
    expect(page.get_by_role("status")).to_have_text("The job remove_expired is sent.")


def logout(hand: Hand, service: Service) -> Iterator[str]:
    hand.follow("Log out")
    yield "log out"
    hand.press("Log out")
    expect(hand.page.get_by_role("status")).to_have_text("You are logged out.")
