"""Dramatiq's own brokers: sent after the commit, and as safe on real servers as they can be."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from pika.exceptions import AMQPError
from redis import RedisError
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from database import connect
from database.engine import sessions
from database.server_brokers import open_server_broker
from tests.infrastructure.queue.workers import Place, Workers, eventually

SERVERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "rabbitmq")]


class Sender:
    """Sends jobs to a server that is not asked: what would go there is noted."""

    def __init__(self, session: Session) -> None:
        self.session: Session | None = session
        self.is_away = False
        self.sent: list[int] = []
        broker: Any = open_server_broker("redis://127.0.0.1:9/0", lambda: self.session, lease=30)
        broker.do_enqueue = self.note
        self.send: Any = dramatiq.actor(broker=broker)(print).send

    def note(self, _queue: str, _id: str, payload: bytes) -> None:
        if self.is_away:
            raise ConnectionError("away")
        self.sent += dramatiq.Message.decode(payload).args


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = connect(f"sqlite:///{tmp_path / 'data.sqlite3'}")
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def sender(session: Session) -> Sender:
    return Sender(session)


def test_what_a_transaction_sends_goes_out_when_it_has_committed(sender: Sender, session: Session) -> None:
    sender.send(1)
    session.execute(text("SELECT 1"))
    sender.send(2)
    assert sender.sent == []
    session.commit()
    session.commit()
    assert sender.sent == [1, 2]
    sender.session = None
    sender.send(3)
    assert sender.sent == [1, 2, 3]


@pytest.mark.parametrize("end", [Session.rollback, Session.close])
def test_what_a_transaction_sends_is_forgotten_with_it(sender: Sender, session: Session, end: Any) -> None:
    sender.send(1)
    end(session)
    sender.send(2)
    session.commit()
    assert sender.sent == [2]


def test_savepoints_are_respected(sender: Sender, session: Session) -> None:
    with session.begin_nested():
        sender.send(1)
        with session.begin_nested():
            sender.send(2)
    outer = session.begin_nested()
    with session.begin_nested():
        sender.send(3)
    outer.rollback()
    sender.send(4)
    assert sender.sent == []
    session.commit()
    assert sorted(sender.sent) == [1, 2, 4]


def test_a_job_whose_server_is_away_after_the_commit_is_named_in_the_log(
    sender: Sender, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    sender.send(1)
    sender.is_away = True
    session.commit()
    (record,) = caplog.records
    assert record.getMessage() == "lost: print(1) was not sent, and its transaction is committed: away"


def test_a_session_that_only_reads_sends_no_job(sender: Sender, session: Session) -> None:
    sender.session = sessions(connect(str(session.get_bind().engine.url)), read_only=True)()
    with pytest.raises(InvalidRequestError, match=r"a GET only reads, and sends no job: print\(1\)"):
        sender.send(1)
    sender.session.close()


def test_arguments_that_are_no_json_fail_before_the_commit(sender: Sender) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        sender.send(object())


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected nothing, redis://host:port/0 or amqp://"):
        open_server_broker("kafka://host", lambda: None, lease=30)


@pytest.mark.parametrize(
    ("url", "module", "extra"), [("rediss://h", "redis", "redis"), ("amqp://h", "pika", "rabbitmq")]
)
def test_a_missing_library_is_named(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"dramatiq.brokers.{extra}", raising=False)
    with pytest.raises(ValueError, match=rf"^{module} is not installed; run `make add PACKAGE={module} "):
        open_server_broker(url, lambda: None, lease=30)


@pytest.mark.parametrize("server", SERVERS)
def test_a_ping_tells_whether_the_server_is_there(server: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{server}_url")
    for port, expected in (("9", pytest.raises((AMQPError, RedisError))), (r"\g<0>", nullcontext())):
        broker: Any = open_server_broker(re.sub(r"\d+(?=/[^/]*$)", port, url), lambda: None, lease=30)
        with expected:
            broker.check()
        broker.close()


@pytest.mark.parametrize("server", SERVERS)
def test_killed_workers_lose_nothing_that_was_sent(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place = Place("sqlite:////dev/null", tmp_path, request.getfixturevalue(f"{server}_url"), lease=1)
    place.send("work", *range(40), kwargs={"seconds": 0.02})
    place.send("work", 40, delay=500)
    with Workers(place) as workers:
        for kill in range(6):
            workers.keep(2, threads=2)
            eventually(lambda kill=kill: len(set(place.numbers("end"))) >= kill * 5)  # type: ignore[misc]
            workers.kill(workers.running[kill % 2])
        workers.keep(2, threads=2)
        eventually(lambda: set(place.numbers("end")) == set(range(41)))


def test_the_service_says_that_its_queue_is_on_a_server_and_whether_it_is_there(make_app: Callable[..., Any]) -> None:
    app = make_app(QUEUE_URL="redis://:hunter2@127.0.0.1:9/0")
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json["checks"]["queue"]) == (503, "failed: ConnectionError")
    result = app.test_cli_runner().invoke(args=["queue", "status"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the jobs are on the server of QUEUE_URL")
    assert "hunter2" not in answer.text + result.output
