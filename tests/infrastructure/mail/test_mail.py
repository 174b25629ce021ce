"""Mails through a real SMTP server, and to none."""

import json
import logging
import mailbox
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from socket import create_server
from typing import Any

import dramatiq
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import select

from app import check, mail
from app.mail import MailRefused, link, send_mail
from app.services import transaction
from config import AppDir, ConfigError, load, require_safe
from database.broker import DatabaseBroker, QueueMessage
from main import cli
from tests.infrastructure.servers import free_port

PASSWORD = "p@ss:word/1815"
LOGIN = "ada:p%40ss%3Aword%2F1815"
TEXT = "a letter that nobody else reads"

MakeApp = Callable[..., Flask]
Serve = Callable[..., "Server"]

# aiosmtpd logs in its own thread, also when the logs of the service that called it have been closed.
logging.getLogger("mail.log").propagate = False


class Server(Controller):
    """An SMTP server that keeps what it gets, and answers `refusals` to the first ones."""

    def __init__(self, *refusals: str, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        self.refusals, self.mails, self.logins, self.used_tls = list(refusals), list[Any](), list[Any](), list[bool]()
        super().__init__(
            self, hostname="127.0.0.1", port=free_port(), ssl_context=tls, authenticator=self.authenticate, **options
        )

    async def handle_RCPT(self, _s: Any, _session: Any, envelope: Any, address: str, _o: Any) -> str:  # noqa: N802
        if self.refusals and not self.refusals[0].startswith("DATA "):
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _s: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refusals:
            return self.refusals.pop(0).removeprefix("DATA ")
        self.used_tls.append(session.ssl is not None)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    def url(self, scheme: str = "smtp", login: str = "") -> str:
        return f"{scheme}://{login}{'@' * bool(login)}127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key that nobody trusts, in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    key = file.with_name("key.pem")
    subprocess.run([*command, "-out", file, "-keyout", key], check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers, which are stopped after the test."""
    started: list[Server] = []

    def serve(*refusals: str, **options: Any) -> Server:
        started.append(Server(*refusals, **options))
        started[-1].start()
        return started[-1]

    yield serve
    for server in started:
        server.stop()


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "letter.txt").write_text("{{ subject }}\n\n{{ text }}\n{{ link('index') }}\n")
    return tmp_path


@pytest.fixture
def sending(make_app: MakeApp, templates: Path) -> Callable[..., Any]:
    """A service with that mail server, and its job that sends a letter."""

    def sending(url: str, **environment: str) -> Any:
        app = make_app(MAIL_URL=url, **environment)
        app.jinja_loader.searchpath.append(str(templates))  # type: ignore[union-attr]

        dramatiq.get_broker().actors.pop("test_letter", None)

        @dramatiq.actor(actor_name="test_letter", max_retries=2, min_backoff=1, throws=MailRefused)
        def letter(to: str = "grace@example.org", subject: str = "Grüße") -> None:
            send_mail(to, "letter", subject=subject, text=TEXT)

        letter.app = app  # type: ignore[attr-defined]
        return letter

    return sending


@pytest.fixture(autouse=True)
def forget_job() -> Iterator[None]:
    yield
    dramatiq.get_broker().actors.pop("test_letter", None)


def failed_jobs() -> list[tuple[str, ...]]:
    broker = dramatiq.get_broker()
    assert isinstance(broker, DatabaseBroker)
    return [tuple(row) for row in broker.rows(select(QueueMessage.error).where(QueueMessage.dead))]


def test_a_mail_arrives_once_it_is_committed(
    serve: Serve, sending: Any, work: Callable[[], int], templates: Path
) -> None:
    server = serve()
    (templates / "letter.html").write_text("<h1>{{ subject }}</h1>{{ text }}")
    letter = sending(server.url(), MAIL_SENDER="post@example.org", BASE_URL="https://example.org/a/")
    with transaction(letter.app) as session:
        letter.send()
        session.rollback()
    assert work() == 0
    assert server.mails == []
    with transaction(letter.app):
        letter.send(subject="<Grüße>")
    assert work() == 0
    [found] = server.mails
    assert [found["To"], found["Subject"], found["Auto-Submitted"]] == [
        "grace@example.org",
        "<Grüße>",
        "auto-generated",
    ]
    assert found["From"].addresses[0].addr_spec == "post@example.org"
    assert found["Message-ID"].endswith("@example.org>")
    assert found.get_body(("plain",)).get_content().splitlines() == [TEXT, "https://example.org/a/"]
    assert found.get_body(("html",)).get_content().strip() == f"<h1>&lt;Grüße&gt;</h1>{TEXT}"


def test_what_the_server_does_not_want_is_tried_once_and_logged_without_the_text(
    serve: Serve, sending: Any, work: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve("550 5.1.1 nobody here", "DATA 554 looks like spam")
    letter = sending(server.url())
    letter.send()
    assert work() == 1
    letter.send()
    assert work() == 2
    assert (server.refusals, server.mails) == ([], [])
    [first], [second] = failed_jobs()
    assert "550 5.1.1 nobody here" in first
    assert "554 looks like spam" in second
    assert TEXT not in caplog.text


def test_what_it_cannot_take_now_is_tried_again(serve: Serve, sending: Any, work: Callable[[], int]) -> None:
    server = serve("451 come back later", "DATA 452 no room")
    sending(server.url()).send()
    assert work() == 0
    assert len(server.mails) == 1


def test_a_server_that_is_away_or_silent_loses_nothing(
    sending: Any, work: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "PATIENCE", 0.2)
    with closing(create_server(("127.0.0.1", 0))) as silent:
        letter = sending(f"smtp://127.0.0.1:{silent.getsockname()[1]}")
        letter.send()
        assert work() == 1
    letter.send()
    assert work() == 2
    assert [error[0].rstrip().rpartition("\n")[2].partition(":")[0] for error in failed_jobs()] == [
        "smtplib.SMTPServerDisconnected",
        "ConnectionRefusedError",
    ]


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("a@example.org\nBcc: b@example.org", "Hi"),
        ("a@example.org, b@example.org", "Hi"),
        ("grüße@example.org", "Hi"),
        ("a@exämple.org", "Hi"),
        ("a@", "Hi"),
        ("a@example.org", "Hi\rBcc: b@example.org"),
        ("a@example.org", "\ud800"),
    ],
)
def test_what_would_be_another_header_or_is_no_address_is_refused(
    serve: Serve, sending: Any, to: str, subject: str
) -> None:
    server = serve()
    with pytest.raises(MailRefused, match="no mail can be sent to"):
        sending(server.url())(to, subject)
    assert server.mails == []


def test_a_request_does_not_wait_for_the_server(sending: Any) -> None:
    app = sending("").app
    with app.test_request_context(), pytest.raises(RuntimeError, match="call it in a job"):
        send_mail("grace@example.org", "letter", subject="", text="")


def test_without_a_server_the_latest_mails_are_kept(
    sending: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(mail, "KEPT", 2)
    letter = sending("")
    for number in range(4):
        letter(subject=str(number))
    kept = mailbox.Maildir(settings.app_dir.mails)
    assert sorted(found["Subject"] for found in kept) == ["2", "3"]


def test_a_password_is_sent_by_tls_to_a_server_that_shows_a_valid_certificate(
    serve: Serve, sending: Any, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, starttls = serve(auth_require_tls=False), serve(tls=None, tls_context=tls)
    refused = {plain.url(login=LOGIN): "STARTTLS extension not supported", starttls.url(login=LOGIN): "self-signed"}
    for url, reason in refused.items():
        with pytest.raises(OSError, match=reason):
            sending(url)()
    assert plain.logins + starttls.logins == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sending(starttls.url(login=LOGIN))()
    assert (starttls.logins, starttls.used_tls) == ([("ada", PASSWORD)], [True])


def test_without_a_password_tls_is_used_if_it_is_offered(serve: Serve, sending: Any, tls: ssl.SSLContext) -> None:
    server = serve(tls_context=tls)
    sending(server.url())()
    assert server.used_tls == [True]


def test_smtps_begins_with_tls(
    sending: Any, tls: ssl.SSLContext, certificate: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = serve(tls=tls, auth_require_tls=False)
    sending(server.url("smtps", LOGIN))()
    assert (server.logins, len(server.mails)) == ([("ada", PASSWORD)], 1)


def test_check_asks_the_server(
    serve: Serve, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = AppDir(tmp_path / "app")
    folder.make()
    folder.database.write_bytes(migrated_database.read_bytes())
    monkeypatch.setattr(check, "PATIENCE", 0.05)
    monkeypatch.setenv("APP_DIR", str(folder.path))

    def result(url: str) -> list[str]:
        monkeypatch.setenv("MAIL_URL", url)
        row = json.loads(CliRunner().invoke(cli, ["check", "--json"]).stdout)[-1]
        return [row["check"], row["result"], row["detail"]]

    assert result(serve().url()) == ["mail", "ok", "the server answers"]
    mark = result("smtp://127.0.0.1:1")
    assert mark[:2] == ["mail", "FAILED"]
    assert "Connection refused; see where: `python main.py config show`" in mark[2]
    assert result("") == ["mail", "ok", f"MAIL_URL is empty: mails stay in {folder.mails}"]


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "http://example.org",
        "smtp://",
        "smtp://ada@example.org",
        f"smtp://ada:{PASSWORD}@h",
        "smtp://h:x",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config/mail\.yaml: mail\.url: expected str matching regex") as caught:
        load({"APP_DIR": str(tmp_path), "MAIL_URL": url})
    assert PASSWORD not in str(caught.value)


def test_a_port_may_be_any_that_there_is(tmp_path: Path) -> None:
    settings = load({"APP_DIR": str(tmp_path), "MAIL_URL": "smtp://h:65535", "BASE_URL": "http://h:65535"})
    assert (settings.mail.url, settings.base_url) == ("smtp://h:65535", "http://h:65535")


def test_links_in_mails_begin_where_the_settings_say(make_app: MakeApp, tmp_path: Path) -> None:
    folder = AppDir(tmp_path / "production")
    folder.make()
    production = {"APP_ENV": "production", "APP_DIR": str(folder.path), "MAIL_URL": "smtp://127.0.0.1"}
    with pytest.raises(ConfigError, match=r"^config/app\.yaml: app\.base_url: links in mails need it; set BASE_URL$"):
        require_safe(load(production))
    named = {"TRUSTED_HOSTS": '[".example.org", "127.0.0.1"]'}
    require_safe(load({**production, **named}))
    for environment, address in (
        (named, "https://example.org"),
        ({"BASE_URL": "https://example.net/blog", **named}, "https://example.net/blog"),
    ):
        assert load({**production, **environment}).base_url == address
    for environment, address in (
        ({"PORT": "8001"}, "http://127.0.0.1:8001/login"),
        ({"BASE_URL": "https://example.net"}, "https://example.net/login"),
        ({"BASE_URL": "https://example.net/blog/"}, "https://example.net/blog/login"),
    ):
        with make_app(**environment).app_context():
            assert link("accounts.login") == address
