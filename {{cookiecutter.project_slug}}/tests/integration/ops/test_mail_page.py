"""The page on which administrators read mails where there is no mail server."""

import mailbox
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from flask import Flask

from config import Settings
from database import utc_now


def test_administrators_read_mails_that_nobody_sends(
    admin: Any, settings: Settings, page_problems: Callable[..., list[str]]
) -> None:
    assert "None." in admin.get("/ops/mail").text
    mail = EmailMessage()
    mail["To"], mail["Subject"], mail["Date"] = "grace@example.org", "<b>Hello</b>", utc_now()
    mail.set_content("See http://127.0.0.1:8000/\n")
    mail.add_alternative("<p>Hello</p>", subtype="html")
    mailbox.Maildir(settings.app_dir.mails).add(mail)
    page = admin.get("/ops/mail")
    assert "&lt;b&gt;Hello&lt;/b&gt;" in page.text
    assert '<a href="http://127.0.0.1:8000/" rel="noopener">' in page.text
    assert "&lt;p&gt;Hello&lt;/p&gt;" in page.text
    assert page_problems(page) == []
    assert 'href="/ops/mail"' in admin.get("/ops").text


def test_there_is_no_such_page_where_mails_are_sent(make_app: Callable[..., Flask], admin: Any) -> None:
    client: Any = make_app(MAIL_URL="smtp://127.0.0.1:1").test_client()
    client.log_in("ada")
    assert client.get("/ops/mail").status_code == 404
    assert 'href="/ops/mail"' not in client.get("/ops").text
