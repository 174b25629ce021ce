"""What the app does around every job."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import svcs
from flask import Flask, current_app
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import logs
from app.accounts import User
from app.extensions import csrf
from app.job_context import NoBroker
from app.services import current_session, transaction

Job = Callable[..., None]
Work = Callable[[], int]
Declare = Callable[[Job], dramatiq.Actor[..., None]]


@pytest.fixture
def declare(app: Flask) -> Iterator[Declare]:
    """Makes a function a job that is tried once, for the time of the test."""
    names = []

    def declare(function: Job) -> dramatiq.Actor[..., None]:
        # No feature's own actor may have this name.
        actor = dramatiq.actor(actor_name=f"test_{function.__name__}", max_retries=0)(function)
        names.append(actor.actor_name)
        return actor

    yield declare
    for name in names:
        del dramatiq.get_broker().actors[name]


def add(username: str) -> None:
    session = current_session()
    assert session is not None
    session.add(User(username=username, email="-", password_hash="-"))


def fail() -> None:
    raise RuntimeError


def succeed() -> None:
    pass


def lines_of_jobs(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, caplog.text.splitlines()) if line["logger"] == "app.job"]


def users(app: Flask) -> int:
    with transaction(app) as session:
        return session.scalar(select(func.count()).select_from(User)) or 0


def test_a_job_that_returns_keeps_what_it_wrote(app: Flask, declare: Declare, work: Work) -> None:
    declare(add).send("ada")
    assert work() == 0
    assert users(app) == 1


def test_a_job_that_fails_leaves_neither_rows_nor_jobs(app: Flask, declare: Declare, work: Work) -> None:
    following = declare(add)

    def write_send_and_fail() -> None:
        add("ada")
        following.send("grace")
        fail()

    declare(write_send_and_fail).send()
    assert work() == 1
    assert users(app) == 0


def test_a_job_whose_commit_fails_has_failed(app: Flask, declare: Declare, work: Work) -> None:
    def write_in_vain() -> None:
        add("ada")
        session: Any = current_session()
        session.commit = fail

    declare(write_in_vain).send()
    assert work() == 1
    assert users(app) == 0


def test_jobs_belong_to_the_app_that_was_made_last(
    make_app: Callable[..., Flask], declare: Declare, work: Work
) -> None:
    seen = []

    def remember() -> None:
        seen.append((current_app.name, id(current_app.extensions)))

    actor = declare(remember)
    for _ in range(2):
        app = make_app()
        assert actor.broker is dramatiq.get_broker()
        actor.send()
        assert work() == 0
        assert seen.pop() == (app.name, id(app.extensions))
    assert seen == []


def test_a_job_and_what_it_sends_log_under_the_id_of_the_request(app: Flask, declare: Declare, work: Work) -> None:
    seen = []

    def look() -> None:
        seen.append((logs.context.get()["job"], logs.context.get().get("request_id")))

    second = declare(look)

    def look_first() -> None:
        look()
        second.send()

    first = declare(look_first)

    @app.post("/send")
    @csrf.exempt
    def send() -> str:
        first.send()
        return "sent"

    sent = app.test_client().post("/send").headers["X-Request-ID"]
    second.send()
    assert work() == 0
    assert sorted(seen, key=str) == [("test_look", sent), ("test_look", None), ("test_look_first", sent)]


def test_a_job_says_when_it_starts_and_how_it_ends(
    app: Flask, declare: Declare, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.job")
    caplog.handler.setFormatter(logs.JsonLine())
    ids = {actor.actor_name: actor.send().message_id for actor in (declare(succeed), declare(fail))}
    assert work() == 1
    lines = lines_of_jobs(caplog)
    events = [(line["job"], line["event"]) for line in lines]
    assert events == [
        ("test_succeed", "job started"),
        ("test_succeed", "job done"),
        ("test_fail", "job started"),
        ("test_fail", "job failed"),
    ]
    assert all(line["message_id"] == ids[line["job"]] and line["attempt"] == 1 for line in lines)
    assert [line.get("error") for line in lines] == [None, None, None, "RuntimeError"]
    assert ["milliseconds" in line for line in lines] == [False, True, False, True]


def test_a_command_that_reads_and_then_sends_has_sent(app: Flask, declare: Declare, work: Work) -> None:
    seen: list[int] = []
    actor = declare(seen.append)
    with app.app_context():
        svcs.flask.get(Session).execute(select(User.id)).all()
        actor.send(1)
    assert work() == 0
    assert seen == [1]


def test_the_lines_of_a_job_that_is_skipped_are_its_own(
    app: Flask, declare: Declare, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.job")
    caplog.handler.setFormatter(logs.JsonLine())
    declare(succeed).send()
    too_old = declare(fail).send_with_options(max_age=1, delay=20)
    assert work() == 1
    skipped = [line for line in lines_of_jobs(caplog) if line["event"] == "job skipped"]
    assert [(line["job"], line["message_id"]) for line in skipped] == [("test_fail", too_old.message_id)]


def test_a_job_cannot_be_sent_before_there_is_an_app() -> None:
    actor = dramatiq.actor(broker=NoBroker())(succeed)
    with pytest.raises(
        RuntimeError, match=r"succeed cannot be sent before there is an app: call app.create_app\(\) first"
    ):
        actor.send()
