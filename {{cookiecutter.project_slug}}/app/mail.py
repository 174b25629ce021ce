"""Mails. A job sends them, so that one goes out if and only if the request that sent the job commits."""

import mailbox
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import make_msgid
from functools import partial
from urllib.parse import unquote, urlsplit

import svcs
from flask import current_app, has_request_context, render_template

from config import Settings
from database import utc_now

# Seconds that a mail server may take for each answer, and how many mails are kept where there is none.
PATIENCE, KEPT = 20, 200


class MailRefused(Exception):
    """A mail that no other attempt would deliver. Name it in the `throws` of the actor, so that there is none."""


def send_mail(to: str, template: str, **values: object) -> None:
    """Send a mail to one address, or keep it in the app folder where `mail.url` is empty.

    `template` is a name such as `notes/mail/new`: the first line of `new.txt` is the subject, and a `new.html` beside
    it is sent along. Raises `MailRefused`, or `OSError` when the server is away or busy: then the job is tried again.
    A job that writes does so afterwards, and thus locks nothing while the server takes its time.
    """
    if has_request_context():
        raise RuntimeError("send_mail waits for a server: call it in a job, which the request sends")
    message, settings = _message(to, template, values), svcs.flask.get(Settings)
    if not settings.mail.url:
        (box := mailbox.Maildir(settings.app_dir.mails)).add(message)
        for key in sorted(box.keys())[:-KEPT]:
            box.discard(key)
        return
    try:
        with mail_server(settings) as server:
            server.send_message(message)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
        [(code, reason)] = getattr(error, "recipients", {"": error.args}).values()
        if code < 500:
            raise
        raise MailRefused(f"{code} {reason.decode(errors='replace')}") from None


def link(endpoint: str, **values: object) -> str:
    """A link to a page for those who are on none. It begins with `app.base_url`, whatever host a request names."""
    base = urlsplit(svcs.flask.get(Settings).base_url)
    urls = current_app.url_map.bind(base.netloc, base.path, url_scheme=base.scheme)
    return urls.build(endpoint, values, force_external=True)


@contextmanager
def mail_server(settings: Settings) -> Iterator[smtplib.SMTP]:
    """A connection to the mail server. It uses TLS if it can; a password goes to a server with a valid certificate."""
    url, base, verified = urlsplit(settings.mail.url), urlsplit(settings.base_url), ssl.create_default_context()
    kind = partial(smtplib.SMTP_SSL, context=verified) if url.scheme == "smtps" else smtplib.SMTP
    with kind(url.hostname or "", url.port or 0, base.hostname, timeout=PATIENCE) as server:
        server.ehlo_or_helo_if_needed()
        if url.scheme == "smtp" and (url.password or server.has_extn("starttls")):
            server.starttls(context=verified if url.password else None)
        if url.password:
            server.login(unquote(url.username or ""), unquote(url.password))
        yield server


def _message(to: str, template: str, values: dict[str, object]) -> EmailMessage:
    settings, message = svcs.flask.get(Settings), EmailMessage()
    subject, _, text = render_template(f"{template}.txt", link=link, **values).partition("\n")
    host = urlsplit(settings.base_url).hostname
    try:
        to.encode("ascii")  # What every server takes.
        message["From"] = Address(settings.app.name, addr_spec=settings.mail.sender or f"noreply@{host}")
        message["To"], message["Subject"], message["Date"] = Address(addr_spec=to), subject, utc_now()
    except (ValueError, IndexError, MessageError) as error:
        raise MailRefused(f"no mail can be sent to {to!r} with the subject {subject!r}: {error}") from None
    message["Message-ID"], message["Auto-Submitted"] = make_msgid(domain=host), "auto-generated"
    message.set_content(text.strip() + "\n")
    if (page := f"{template}.html") in current_app.jinja_env.list_templates():
        message.add_alternative(render_template(page, link=link, **values), subtype="html")
    return message
