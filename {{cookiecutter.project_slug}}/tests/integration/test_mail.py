"""Mails that jobs send, where there is no mail server, and where it is away."""

import mailbox
import smtplib
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from flask import Flask

from app.mail import MailRefused, send_mail
from config import Settings


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "greeting.txt").write_text("Hello, {{ name }}\n\nSee {{ link('index') }}\n")
    (tmp_path / "greeting.html").write_text("<p>Hello, {{ name }}</p>")
    return tmp_path


@pytest.fixture
def send(make_app: Callable[..., Flask], templates: Path) -> Callable[..., None]:
    """Sends a mail as a job does; keywords are environment variables."""

    def send(to: str, name: str = "<b>Ada</b>", **environment: str) -> None:
        app = make_app(**environment)
        app.jinja_loader.searchpath.append(str(templates))  # type: ignore[union-attr]
        with app.app_context():
            send_mail(to, "greeting", name=name)

    return send


def test_a_mail_has_a_subject_a_text_and_html(send: Callable[..., None], settings: Settings) -> None:
    send("grace@example.org", BASE_URL="https://example.org/notes")
    box = mailbox.Maildir(settings.app_dir.mails)
    [mail] = [message_from_bytes(box.get_bytes(key), policy=default) for key in box.iterkeys()]
    assert [mail["To"], mail["Subject"]] == ["grace@example.org", "Hello, <b>Ada</b>"]
    parts = [mail.get_body((kind,)) for kind in ("plain", "html")]
    texts = [part.get_content() for part in parts if part]
    assert texts == ["See https://example.org/notes/\n", "<p>Hello, &lt;b&gt;Ada&lt;/b&gt;</p>\n"]


@pytest.mark.parametrize("url", ["smtp://127.0.0.1:1", "smtps://ada:secret@127.0.0.1:1"])
def test_a_server_that_is_away_is_an_error_that_a_job_is_retried_for(send: Callable[..., None], url: str) -> None:
    with pytest.raises(ConnectionRefusedError, match="refused"):
        send("grace@example.org", MAIL_URL=url)


@pytest.mark.parametrize(("code", "error"), [(450, smtplib.SMTPRecipientsRefused), (550, MailRefused)])
def test_what_the_server_refuses_for_good_is_told_apart(
    send: Callable[..., None], monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    server = create_autospec(smtplib.SMTP, instance=True)
    server.__enter__.return_value = server
    server.send_message.side_effect = smtplib.SMTPRecipientsRefused({"grace@example.org": (code, b"no")})
    monkeypatch.setattr(smtplib, "SMTP", lambda *_, **__: server)
    with pytest.raises(error, match="no"):
        send("grace@example.org", MAIL_URL="smtp://ada:p%40ss@127.0.0.1")
    server.starttls.assert_called_once()
    server.login.assert_called_once_with("ada", "p@ss")


@pytest.mark.parametrize("to", ["grace@example.org\nBcc: ada@example.org", "nobody", ""])
def test_an_address_with_more_in_it_is_refused(send: Callable[..., None], to: str) -> None:
    with pytest.raises(MailRefused, match="no mail can be sent to"):
        send(to)
