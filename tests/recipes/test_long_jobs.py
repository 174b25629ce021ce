"""News for all accounts: a batch and the job after it are there together, or not at all."""

import mailbox
from collections.abc import Callable

import dramatiq
import pytest
from flask import Flask
from sqlalchemy import select

from app.accounts import User
from app.news.jobs import write_letter, write_letters
from app.services import transaction
from config import Settings
from database import utc_now
from database.broker import QueueMessage


def test_letters_go_on_where_they_were_stopped(
    app: Flask, settings: Settings, work: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.news.jobs.BATCH", 10)
    names = [f"reader{number}" for number in range(15)]
    with transaction(app) as session:
        session.add_all(
            User(username=name, email=f"{name}@example.org", email_confirmed=utc_now(), password_hash="-")
            for name in names
        )

    def waiting() -> list[tuple[str, int]]:
        with transaction(app) as session:
            messages = [dramatiq.Message.decode(payload) for payload in session.scalars(select(QueueMessage.payload))]
        return [(message.actor_name, message.args[0]) for message in messages]

    with transaction(app):
        write_letters(0)
    first = [("write_letter", number) for number in range(1, 11)]
    assert sorted(waiting()) == [*first, ("write_letters", 10)]

    with monkeypatch.context() as patched:
        patched.setattr(write_letter, "send", stopped_at_12(write_letter.send))
        with pytest.raises(KeyboardInterrupt), transaction(app):
            write_letters(10)
    assert sorted(waiting()) == [*first, ("write_letters", 10)]

    assert work() == 0
    letters = [letter["To"] for letter in mailbox.Maildir(settings.app_dir.mails)]
    assert sorted(letters) == sorted(f"{name}@example.org" for name in names)


def stopped_at_12(send: Callable[[int], object]) -> Callable[[int], None]:
    def sending(number: int) -> None:
        if number == 12:
            raise KeyboardInterrupt
        send(number)

    return sending
