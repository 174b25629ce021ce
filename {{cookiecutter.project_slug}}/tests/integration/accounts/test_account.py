"""How people look after their account: what they do, from the page to the mail and back."""

import mailbox
import re
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.accounts import User
from app.services import transaction
from config import Settings
from database import Base, utc_now
from storage.disks import Disks
from tests.conftest import PASSWORD

NEW = "another horse battery"
Mails = Callable[[], list[tuple[str, str]]]
Problems = Callable[[TestResponse], list[str]]


@pytest.fixture
def mails(settings: Settings, work: Callable[[], int]) -> Mails:
    """Lets the jobs run; gives the address and the link of each mail since the last time."""

    def mails() -> list[tuple[str, str]]:
        assert work() == 0
        box = mailbox.Maildir(settings.app_dir.mails)
        found = [message_from_bytes(box.get_bytes(key), policy=default) for key in box.iterkeys()]
        box.clear()
        return [(mail["To"], re.findall(r"http://127\.0\.0\.1:8000(/\S+)", mail.get_content())[0]) for mail in found]

    return mails


@pytest.fixture
def confirmed(app: Flask, user: User) -> User:
    """Ada, whose address is confirmed."""
    with transaction(app) as session:
        session.get_one(User, user.id).email_confirmed = utc_now()
    return user


def account(app: Flask, user: User) -> User | None:
    with transaction(app) as session:
        return session.get(User, user.id)


def is_logged_in(client: Any) -> bool:
    return bool(client.get("/account").status_code == 200)


def test_a_new_account_confirms_its_address_by_the_link_in_a_mail(
    app: Flask, client: Any, mails: Mails, page_problems: Problems
) -> None:
    client.submit("/register", {"username": "ada", "email": "ada@example.org", "password": PASSWORD})
    assert "not confirmed" in client.get("/account").text
    [(to, link)] = mails()
    assert to == "ada@example.org"
    other: Any = app.test_client()
    page = other.get(link)
    assert "ada@example.org is the address of the account ada." in page.text
    assert page_problems(page) == []
    assert "not confirmed" in client.get("/account").text, "a GET changes nothing"
    assert other.submit(link).status_code == 302
    assert "not confirmed" not in client.get("/account").text
    assert other.get(link).status_code == 403


def test_a_forgotten_password_is_replaced_once_and_all_sessions_end(
    app: Flask, logged_in: Any, confirmed: User, mails: Mails
) -> None:
    client: Any = app.test_client()
    assert client.submit("/account/forgot", {"email": "ADA@example.org"}).location == "/login"
    [(to, link)] = mails()
    assert to == "ada@example.org"
    assert client.submit(link, {"password": "ada@example.org"}).status_code == 422
    assert is_logged_in(logged_in)
    assert client.submit(link, {"password": NEW}).location == "/login"
    assert not is_logged_in(logged_in)
    assert client.get(link).status_code == 403
    assert client.log_in("ada").status_code == 422
    assert client.log_in("ada", NEW).status_code == 302


def test_an_address_that_no_account_has_confirmed_gets_the_same_answer_and_no_mail(
    app: Flask, client: Any, confirmed: User, other_user: User, mails: Mails
) -> None:
    def answer(email: str) -> tuple[int, str]:
        response = client.submit("/account/forgot", {"email": email})
        return response.status_code, client.get("/login").text.partition("</div>")[0]

    answers = {answer(email) for email in ("ada@example.org", "grace@example.org", "nobody@example.org")}
    [(status, page)] = answers
    assert status == 302
    assert "If an account has confirmed this address" in page
    assert [to for to, _ in mails()] == ["ada@example.org"]


def test_a_new_password_needs_the_old_one_and_ends_all_other_sessions(
    app: Flask, logged_in: Any, page_problems: Problems
) -> None:
    other: Any = app.test_client()
    other.log_in("ada")
    refused = logged_in.submit("/account/password", {"current": "not mine", "password": "ada"})
    assert refused.status_code == 422
    assert "This is not your password." in refused.text
    assert "Use at least 12 characters." in refused.text
    assert page_problems(refused) == []
    assert logged_in.submit("/account/password", {"current": PASSWORD, "password": NEW}).location == "/account"
    assert [is_logged_in(browser) for browser in (logged_in, other)] == [True, False]
    assert other.log_in("ada", NEW).status_code == 302


def test_a_new_address_counts_when_it_is_confirmed(app: Flask, logged_in: Any, confirmed: User, mails: Mails) -> None:
    assert logged_in.submit("/account/address", {"email": "a@example.net", "current": "no"}).status_code == 422
    assert logged_in.submit("/account/address", {"email": "a@example.net", "current": PASSWORD}).status_code == 302
    [(to, link)] = mails()
    assert to == "a@example.net"
    assert "ada@example.org" in logged_in.get("/account").text
    logged_in.submit(link)
    found = account(app, confirmed)
    assert found
    assert found.email == "a@example.net"


def test_each_session_is_listed_and_can_be_ended_by_its_owner(
    app: Flask, logged_in: Any, other_user: User, page_problems: Problems
) -> None:
    phone, tablet, graces = (app.test_client() for _ in range(3))
    phone.environ_base["HTTP_USER_AGENT"] = "<b>Phone " + "x" * 500
    for browser, name in ((phone, "ada"), (tablet, "ada"), (graces, "grace")):
        browser.log_in(name)  # type: ignore[attr-defined]
    page = logged_in.get("/account")
    assert page_problems(page) == []
    assert page.text.count("this session") == 1
    assert "&lt;b&gt;Phone xxx" in page.text
    [_, ending] = re.findall(r'action="(/account/sessions/\d+/end)"', page.text)
    graces.submit(ending, page="/logout")  # type: ignore[attr-defined]
    assert is_logged_in(phone)
    logged_in.submit(ending, page="/account")
    assert [is_logged_in(browser) for browser in (phone, tablet)] == [False, True]
    logged_in.submit("/account/sessions/end", page="/account")
    assert [is_logged_in(browser) for browser in (logged_in, tablet, graces)] == [True, False, True]


def test_a_deleted_account_is_gone_with_its_rows_and_later_its_files(
    app: Flask, logged_in: Any, user: User, disks: Disks, work: Callable[[], int], tomorrow: Callable[[], None]
) -> None:
    disks["media"].write("pictures/a.webp", b"a picture")
    with transaction(app) as session:
        session.get_one(User, user.id).picture = "pictures/a.webp"
    assert logged_in.submit("/account/delete", {"current": "not mine"}).status_code == 422
    assert account(app, user)
    assert logged_in.submit("/account/delete", {"current": PASSWORD}).location == "/"
    assert not is_logged_in(logged_in)
    assert logged_in.log_in("ada").status_code == 422
    assert account(app, user) is None
    assert disks["media"].exists("pictures/a.webp")
    tomorrow()
    assert work() == 0
    assert not disks["media"].exists("pictures/a.webp")


def test_every_row_of_a_user_goes_with_the_account() -> None:
    keys = [key for table in Base.metadata.tables.values() for key in table.foreign_keys]
    belonging = {key.parent.table.name: key.ondelete for key in keys if key.column.table.name == "user_account"}
    assert belonging
    assert set(belonging.values()) <= {"CASCADE", "SET NULL"}, belonging
