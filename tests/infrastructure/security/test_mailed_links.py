"""Links in mails that somebody made, kept, or used twice, and what asking for them tells."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Thread
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, event, select
from svcs.flask import get

from app.accounts import User, account, views
from app.accounts.jobs import mail_confirmation, mail_reset
from app.accounts.links import new_token, state_of
from app.services import transaction
from config import Settings
from database import rate_limits, utc_now
from tests.conftest import PASSWORD, add_user

NEW = "another horse battery"
MakeApp = Callable[..., Flask]


@pytest.fixture
def ada(app: Flask, user: User) -> Callable[..., str]:
    """The address of a link for ada's account, as it is now; changes of it are made before, by keywords."""

    def link(purpose: str = "reset", **changes: object) -> str:
        with transaction(app) as session:
            found = session.get_one(User, user.id)
            for name, value in changes.items():
                setattr(found, name, value)
            return f"/account/link/{purpose}/{new_token(purpose, found, 'new@example.org')}"

    return link


def works(app: Flask, link: str) -> bool:
    """Whether the link opens its page, and HEAD and POST agree with that."""
    client: Any = app.test_client()
    statuses = [client.get(link).status_code, client.head(link).status_code]
    token = {"csrf_token": client.get("/login").text.partition('name="csrf_token"')[2].split('"')[3]}
    assert statuses in ([200, 200], [403, 403])
    if statuses[0] == 403:
        assert client.post(link, data={"password": NEW, **token}).status_code == 403
    return statuses == [200, 200]


def test_only_a_whole_link_works_for_its_own_purpose(
    app: Flask, ada: Any, make_app: MakeApp, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "hit", lambda *_: 0.0)
    good = ada()
    assert works(app, good)
    head, _, token = good.rpartition("/")
    payload, stamp, signature = token.rsplit(".", 2)
    _, _, another = ada("confirm").rpartition("/")
    made = ["x", "..", ".", token[:-1], f"{token}x", f"{payload}.{stamp}.", f"{payload}x.{stamp}.{signature}", another]
    made += [f"{payload[:-4]}AAAA.{stamp}.{signature}", f".{token}", f"{token}%00", f"{token}%0A"]
    assert [token for token in made if works(app, f"{head}/{token}")] == []
    assert not works(make_app(APP_APP__SECRET_KEY="y" * 40), good)
    assert works(
        make_app(APP_APP__SECRET_KEY="y" * 40, APP_APP__SECRET_KEY_FALLBACKS=f'["{settings.app.secret_key}"]'), good
    )


def test_a_link_ends_with_what_it_was_made_for(app: Flask, ada: Any, user: User) -> None:
    for purpose in ("reset", "confirm"):
        for change in ({"password_hash": purpose}, {"email": f"{purpose}@b.org"}, {"email_confirmed": utc_now()}):
            before = ada(purpose)
            assert works(app, before)
            ada(purpose, **change)
            assert not works(app, before)
    before = ada()
    with transaction(app) as session:
        session.delete(session.get_one(User, user.id))
    # The next account may get the row's number.
    add_user(app, get_settings(app), "grace")
    assert not works(app, before)


def get_settings(app: Flask) -> Settings:
    with app.app_context():
        return get(Settings)


def test_a_link_works_for_a_while(app: Flask, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    links, start = {"reset": ada("reset"), "confirm": ada("confirm")}, time.time()

    def after(hours: float) -> list[bool]:
        monkeypatch.setattr(time, "time", lambda: start + hours * 3600)
        return [works(app, links[purpose]) for purpose in ("reset", "confirm")]

    assert [after(0.99), after(1.01), after(23.9), after(24.1)] == [
        [True, True],
        [False, True],
        [False, True],
        [False] * 2,
    ]


def test_of_two_who_use_a_link_at_once_one_sets_the_password(app: Flask, ada: Any, client: Any) -> None:
    link, ready, statuses = ada(), Barrier(2), dict[str, int]()

    def use(password: str) -> None:
        browser: Any = app.test_client()
        token = browser.get(link).text.partition('name="csrf_token"')[2].split('"')[3]
        ready.wait(timeout=20)
        statuses[password] = browser.post(link, data={"csrf_token": token, "password": password}).status_code

    threads = [Thread(target=use, args=[f"{NEW} {number}"]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses.values()) == [302, 403]
    for password, status in statuses.items():
        assert app.test_client().log_in("ada", password).status_code == (302 if status == 302 else 422)  # type: ignore[attr-defined]


def test_a_link_that_was_asked_for_before_a_reset_is_not_sent_after_it(app: Flask, ada: Any, user: User) -> None:
    before = state_of(user)
    ada(password_hash="another")
    with transaction(app):
        mail_confirmation(user.id, "thief@example.net", before)
    assert not get_settings(app).app_dir.mails.exists()


@pytest.mark.parametrize(("module", "step"), [(views, "check_password"), (account, "hash_password")])
def test_a_password_that_is_replaced_while_it_is_used_opens_and_changes_nothing(
    app: Flask, ada: Any, logged_in: Any, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    original = getattr(module, step)

    def then_replaced(*arguments: Any) -> Any:
        result = original(*arguments)
        thread = Thread(target=ada, kwargs={"password_hash": "another"})
        thread.start()
        thread.join()
        return result

    monkeypatch.setattr(module, step, then_replaced)
    thief: Any = app.test_client()
    if module is views:
        assert thief.log_in("ada").status_code == 403
        assert thief.get("/account").status_code == 302
    else:
        assert logged_in.submit("/account/password", {"current": PASSWORD, "password": NEW}).status_code == 403
    with transaction(app) as session:
        assert session.scalar(select(User.password_hash)) == "another"


@contextmanager
def statements(app: Flask) -> Iterator[list[str]]:
    """The SQL statements of what is done inside."""
    found: list[str] = []
    with app.app_context():
        engine = get(Engine)

    def note(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def test_asking_does_the_same_work_whether_there_is_an_account_or_not(app: Flask, ada: Any) -> None:
    ada(email_confirmed=utc_now())
    seen = []
    for email in ("nobody@example.org", "ada@example.org"):
        client: Any = app.test_client()
        with statements(app) as found:
            response = client.submit("/account/forgot", {"email": email})
        assert not any("user_account" in statement for statement in found)
        seen.append((response.status_code, response.text, found))
    assert seen[0] == seen[1]


def test_links_are_asked_for_only_so_often_by_a_client_and_for_an_address(make_app: MakeApp, user: User) -> None:
    client: Any = make_app(APP_SECURITY__RATE_LIMITS__MAIL="2 per hour").test_client()

    def ask(email: str, address: str, path: str = "/account/forgot") -> int:
        client.environ_base["REMOTE_ADDR"] = address
        return int(client.submit(path, {"email": email, "current": PASSWORD}).status_code)

    assert [ask(f"a{number}@example.org", "192.0.2.1") for number in range(3)] == [302, 302, 429]
    assert [ask(email, f"192.0.2.{9 + at}") for at, email in enumerate(["b@b.org", " B@b.org", "B@B.ORG"])] == [
        302,
        302,
        429,
    ]
    client.log_in("ada")
    assert [ask(f"c{number}@c.org", f"192.0.2.{20 + number}", "/account/address") for number in range(3)] == [
        302,
        302,
        429,
    ]


def test_a_link_leads_to_the_service_whatever_host_a_request_names(
    app: Flask, ada: Any, work: Callable[[], int]
) -> None:
    ada(email_confirmed=utc_now())
    client: Any = app.test_client()
    evil = {"base_url": "http://evil.example"}
    token = client.get("/account/forgot", **evil).text.partition('name="csrf_token"')[2].split('"')[3]
    fields = {"csrf_token": token, "email": "ada@example.org"}
    assert client.post("/account/forgot", data=fields, **evil).status_code == 302
    assert work() == 0
    [mail] = (get_settings(app).app_dir.mails / "new").iterdir()
    assert "http://127.0.0.1:8000/account/link/reset/" in mail.read_text()
    assert "evil" not in mail.read_text()


def test_each_account_of_an_address_gets_its_own_link_and_only_a_confirmed_one(app: Flask, settings: Settings) -> None:
    for name in ("ada", "grace", "mary"):
        with transaction(app) as session:
            user = session.merge(add_user(app, settings, name))
            user.email, user.email_confirmed = "Shared@example.org", None if name == "mary" else utc_now()
    with transaction(app):
        mail_reset("shared@example.org")
    texts = [path.read_text() for path in (settings.app_dir.mails / "new").iterdir()]
    assert sorted(name for text in texts for name in ("ada", "grace", "mary") if f"Hello {name}," in text) == [
        "ada",
        "grace",
    ]
    assert all("To: Shared@example.org" in text for text in texts)
