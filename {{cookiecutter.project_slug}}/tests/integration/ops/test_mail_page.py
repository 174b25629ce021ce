"""The page on which administrators read mails where there is no mail server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from flask import Flask

from app.mail import send_mail


@pytest.fixture
def greet(app: Flask, tmp_path: Path) -> Any:
    """A job that sends a mail with a text in it."""
    (tmp_path / "greeting.txt").write_text("Hello, {{ name }}\n\nSee {{ link('index') }}\n")
    (tmp_path / "greeting.html").write_text("<p>Hello, {{ name }}</p>")
    app.jinja_loader.searchpath.append(str(tmp_path))  # type: ignore[union-attr]

    @dramatiq.actor(actor_name="test_greet", max_retries=0)
    def greet(name: str) -> None:
        send_mail("grace@example.org", "greeting", name=name)

    yield greet
    del dramatiq.get_broker().actors["test_greet"]


def test_administrators_read_mails_that_nobody_sends(
    greet: Any, admin: Any, work: Callable[[], int], page_problems: Callable[..., list[str]]
) -> None:
    assert "None." in admin.get("/ops/mail").text
    greet.send("<b>Ada</b>")
    assert work() == 0
    page = admin.get("/ops/mail")
    assert "<strong>Hello, &lt;b&gt;Ada&lt;/b&gt;</strong>" in page.text
    assert "to grace@example.org" in page.text
    assert '<a href="http://127.0.0.1:8000/" rel="noopener">' in page.text
    assert "&lt;p&gt;Hello, &amp;lt;b&amp;gt;Ada" in page.text
    assert page_problems(page) == []
    assert 'href="/ops/mail"' in admin.get("/ops").text


def test_there_is_no_such_page_where_mails_are_sent(make_app: Callable[..., Flask], admin: Any) -> None:
    client: Any = make_app(MAIL_URL="smtp://127.0.0.1:1").test_client()
    client.log_in("ada")
    assert client.get("/ops/mail").status_code == 404
    assert 'href="/ops/mail"' not in client.get("/ops").text
