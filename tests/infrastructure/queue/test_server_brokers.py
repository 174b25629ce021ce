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
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from database import connect
from database.server_brokers import open_server_broker
from tests.infrastructure.queue.workers import Place, Workers, eventually

SERVERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("redis", "rabbitmq")]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'data.sqlite3'}")
    yield engine
    engine.dispose()


class Sent:
    """A broker on a server that is not asked: what would go there is noted."""

    def __init__(self) -> None:
        self.session: Session | None = None
        broker: Any = open_server_broker("redis://127.0.0.1:9/0", lambda: self.session, lease=30)
        broker.do_enqueue = self.note
        self.job: Any = dramatiq.actor(broker=broker)(print)
        self.numbers: list[int] = []
        self.is_away = False

    def note(self, _queue: str, _id: str, payload: bytes) -> None:
        if self.is_away:
            raise ConnectionError("away")
        self.numbers += dramatiq.Message.decode(payload).args


@pytest.fixture
def sent() -> Sent:
    return Sent()


def test_what_a_transaction_sends_goes_out_when_it_has_committed(sent: Sent, engine: Engine) -> None:
    with Session(engine) as sent.session:
        sent.job.send(1)
        sent.session.execute(text("SELECT 1"))
        sent.job.send(2)
        assert sent.numbers == []
        sent.session.commit()
        assert sent.numbers == [1, 2]
        sent.session.commit()
    sent.session = None
    sent.job.send(3)
    assert sent.numbers == [1, 2, 3]


@pytest.mark.parametrize("end", [Session.rollback, Session.close])
def test_what_a_transaction_sends_is_forgotten_with_it(
    sent: Sent, engine: Engine, end: Callable[[Session], None]
) -> None:
    with Session(engine) as sent.session:
        sent.job.send(1)
        end(sent.session)
        sent.job.send(2)
        sent.session.commit()
    assert sent.numbers == [2]


def test_savepoints_are_respected(sent: Sent, engine: Engine) -> None:
    with Session(engine) as sent.session:
        with sent.session.begin_nested():
            sent.job.send(1)
            with sent.session.begin_nested():
                sent.job.send(2)
        outer = sent.session.begin_nested()
        with sent.session.begin_nested():
            sent.job.send(3)
        outer.rollback()
        sent.job.send(4)
        assert sent.numbers == []
        sent.session.commit()
    assert sorted(sent.numbers) == [1, 2, 4]


def test_a_job_whose_server_is_away_after_the_commit_is_named_in_the_log(
    sent: Sent, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(engine) as sent.session:
        sent.job.send(1)
        sent.is_away = True
        sent.session.commit()
    (record,) = caplog.records
    assert record.getMessage() == "lost: print(1) was not sent, and its transaction is committed: away"


def test_arguments_that_are_no_json_fail_before_the_commit(sent: Sent, engine: Engine) -> None:
    with Session(engine) as sent.session, pytest.raises(TypeError, match="not JSON serializable"):
        sent.job.send(object())


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
    assert result.output.startswith("Error: the jobs are on the server that QUEUE_URL names")
    assert "hunter2" not in answer.text + result.output
