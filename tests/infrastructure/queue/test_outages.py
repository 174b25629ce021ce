"""Servers that go away and come back: workers wait for them, and senders do not notice."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError
from sqlalchemy import event

from database.broker import DatabaseBroker
from database.messages import MessageTable
from database.outbox import OutboxBroker
from tests.infrastructure.queue.conftest import OpenQueue, Queue, see_leases_renewed
from tests.infrastructure.queue.workers import Place, eventually
from tests.infrastructure.servers import RabbitMQ, Redis, Server

SERVERS = {"postgresql": "postgres_server", "redis": "redis_server", "rabbitmq": "rabbitmq_server"}


@pytest.fixture
def server(backend: str, request: pytest.FixtureRequest) -> Server:
    """The server behind the queue; it runs again after the test."""
    server: Server = request.getfixturevalue(SERVERS[backend])
    return server


def with_server(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("backend", [pytest.param(name, marks=pytest.mark.slow) for name in names])


def crash(server: Server) -> None:
    """End it as hard as tests have time for: a RabbitMQ that was killed lets consumers wait for a minute."""
    server.stop() if isinstance(server, RabbitMQ) else server.kill()


@with_server("redis", "rabbitmq")
def test_senders_need_no_server_and_workers_wait_for_it(
    queue: Queue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []
    job = queue.actor(ran.append)
    server.stop()
    job.send(1)
    queue.work()
    eventually(lambda: "Consumer encountered a connection error" in caplog.text)
    eventually(lambda: "Queue default: jobs wait in the database, next try in " in caplog.text)
    job.send(2)
    server.start()
    eventually(lambda: sorted(ran) == [1, 2])
    crash(server)
    job.send(3)
    server.start()
    eventually(lambda: 3 in ran)
    assert not [record for record in caplog.records if record.exc_info and not record.name.startswith("pika")]
    assert server.password not in caplog.text


@with_server("postgresql", "redis", "rabbitmq")
def test_a_job_that_runs_while_its_server_is_killed_is_not_lost(
    queue: Queue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    started, finish = threading.Event(), threading.Event()
    done: list[int] = []

    def run(number: int) -> None:
        started.set()
        finish.wait(60)
        done.append(number)

    job = queue.actor(run)
    for number in range(6):
        job.send(number)
    queue.work(threads=1)
    assert started.wait(20)
    crash(server)
    finish.set()
    eventually(lambda: done)
    server.start()
    eventually(lambda: set(done) == set(range(6)))
    queue.broker.join("default", timeout=20_000)
    eventually(lambda: queue.rows() == [])
    assert "unexpected error" not in caplog.text


@with_server("postgresql")
def test_leases_are_renewed_again_after_an_outage(
    open_queue: OpenQueue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    queue, other = open_queue(lease=9), open_queue(lease=9)
    finish = threading.Event()
    starts = []

    def run() -> None:
        starts.append(1)
        finish.wait(60)

    for opened in (queue, other):
        job = opened.actor(run)
        opened.work()
    job.send()
    eventually(lambda: starts)
    # In good order: of claims, a crash may undo the last moments.
    server.stop()
    eventually(lambda: "Leases were not renewed, trying again: " in caplog.text)
    server.start()
    (row,) = queue.rows()
    eventually(lambda: queue.rows()[0].due > row.due)
    finish.set()
    queue.broker.join("default", timeout=20_000)
    assert len(starts) == 1


@with_server("postgresql")
def test_a_lost_notification_channel_is_opened_again(queue: Queue, server: Any) -> None:
    ran: list[int] = []
    job = queue.actor(ran.append)
    queue.work()
    job.send(1)
    eventually(lambda: ran == [1])
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    job.send(2)
    eventually(lambda: ran == [1, 2])
    job.send(3)
    eventually(lambda: ran == [1, 2, 3])


@with_server("postgresql")
def test_a_connection_that_cannot_be_set_up_is_closed(queue: Queue) -> None:
    opened: list[Any] = []

    def refuse_statements(connection: Any, *_: object) -> None:
        """Leave it as a server does that stops just then: open, and good for nothing."""
        opened.append(connection)
        with pytest.raises(queue.engine.dialect.loaded_dbapi.Error):
            connection.execute("no statement")

    for engine, name in ((queue.table.direct, "connect"), (queue.engine, "checkout")):
        event.listen(engine, name, refuse_statements, insert=True)
    with pytest.raises(BrokerConnectionError):
        queue.table.check()
    with pytest.raises(BrokerConnectionError):
        queue.broker.consume("default")
    assert [connection.closed for connection in opened] == [True, True]


@with_server("rabbitmq")
def test_connections_that_the_server_ends_are_replaced(queue: Queue, server: RabbitMQ) -> None:
    ran: list[int] = []
    job = queue.actor(ran.append)
    queue.work()
    job.send(1)
    eventually(lambda: ran == [1])
    server.end_connections()
    job.send(2)
    eventually(lambda: ran == [1, 2])


@with_server("rabbitmq")
def test_a_message_is_not_acknowledged_on_another_connection(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(queue.broker, OutboxBroker)
    queue.actor(lambda: None).send()
    old = queue.broker.consume("default", timeout=100)
    late = next_message(old)
    old.close()
    new = queue.broker.consume("default", timeout=100)
    again = next_message(new)
    assert again.message_id == late.message_id
    new.ack(late)
    assert "it may run again" in caplog.text
    new.close()
    last = queue.broker.consume("default", timeout=100)
    assert next_message(last).message_id == late.message_id
    last.close()


@with_server("redis")
def test_messages_that_were_handed_out_and_never_arrived_are_fetched_again(queue: Queue) -> None:
    broker: Any = queue.broker
    queue.actor(lambda: None).send()
    first = broker.consume("default", timeout=10)
    eventually(lambda: broker.client.llen("dramatiq:default"))
    # As if the answer had been lost with the connection.
    broker.do_fetch("default", 1)
    first.close()
    held = next_message(broker.consume("default", timeout=10))
    again = broker.consume("default", timeout=10)
    assert [next(again) for _ in range(3)] == [None] * 3
    again.ack(held)


@with_server("redis", "rabbitmq")
def test_what_nobody_can_read_holds_up_no_job(
    queue: Queue, backend: str, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    broker: Any = queue.broker
    ran: list[int] = []
    job = queue.actor(ran.append)
    if backend == "redis":
        broker.client.hset("dramatiq:default.msgs", "broken", "{")
        broker.client.rpush("dramatiq:default", "broken")
    else:
        broker.declare_queue("default", ensure=True)
        broker.channel.basic_publish(exchange="", routing_key="default", body=b"{")
    job.send(1)
    queue.work()
    eventually(lambda: ran == [1])
    assert "unexpected error" not in caplog.text


@with_server("redis")
def test_failed_jobs_are_set_aside_once_however_often_the_server_has_to_be_told(
    queue: Queue, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    started, finish = threading.Event(), threading.Event()

    def fail() -> None:
        started.set()
        finish.wait(60)
        raise ValueError

    queue.actor(fail, max_retries=0).send()
    queue.work(threads=1)
    assert started.wait(20)
    server.kill()
    finish.set()
    eventually(lambda: caplog.text.count("Failed to post_process_message") > 2)
    server.start()
    queue.broker.join("default", timeout=20_000)
    assert len(queue.dead()) == 1


@with_server("redis")
def test_a_worker_with_only_long_jobs_keeps_them(open_queue: OpenQueue) -> None:
    starts = []
    finish = threading.Event()

    def run() -> None:
        starts.append(1)
        finish.wait(60)

    first, second = open_queue(lease=3), open_queue(lease=3)
    for queue in (first, second):
        job = queue.actor(run)
    # All that it may hold, so that it has no reason to ask for more, which is what keeps its messages its own.
    for _ in range(2):
        job.send()
    first.work(threads=1)
    eventually(lambda: starts)
    second.work(threads=1)
    see_leases_renewed(first, 1)
    finish.set()
    eventually(lambda: len(starts) == 2)
    first.broker.join("default", timeout=20_000)
    assert len(starts) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_wrong_password_is_logged_without_it(
    name: str, open_queue: OpenQueue, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = str(request.getfixturevalue(f"{name}_url"))
    server: Redis | RabbitMQ = request.getfixturevalue(f"{name}_server")
    scheme, _, rest = url.partition("://")
    wrong = f"{scheme}://{server.username}:wr0ng%2F%40%25@{rest.rpartition('@')[2]}"
    queue = open_queue(queue=wrong)
    job = queue.actor(lambda: None)
    queue.work()
    job.send()
    eventually(lambda: "Consumer encountered a connection error" in caplog.text)
    eventually(lambda: "Queue default: jobs wait in the database" in caplog.text)
    assert "wr0ng" not in caplog.text
    with pytest.raises(Exception, match=r"(?i)password|refused"):
        queue.broker.check()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["redis", "rabbitmq"])
@pytest.mark.parametrize("backend", ["sqlite"])
def test_jobs_run_through_tls(
    name: str, open_queue: OpenQueue, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(request.getfixturevalue(f"{name}_tls_url"))
    server: Redis | RabbitMQ = request.getfixturevalue(f"{name}_server")
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    queue = open_queue(queue=url)
    ran: list[int] = []
    job = queue.actor(ran.append)
    queue.work()
    job.send(1)
    eventually(lambda: ran == [1])
    queue.broker.check()


def next_message(consumer: dramatiq.Consumer) -> dramatiq.MessageProxy:
    """The next message, which comes soon."""
    found: list[dramatiq.MessageProxy] = []

    def look() -> bool:
        found.extend(message for message in [next(consumer)] if message)
        return bool(found)

    eventually(look)
    return found[0]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_worker_outlives_a_database_that_fails_for_a_while(queue: Queue) -> None:
    started, finish, down = threading.Event(), threading.Event(), threading.Event()
    done: list[str] = []
    failures = []

    def run(name: str) -> None:
        started.set()
        finish.wait(20)
        done.append(name)

    @event.listens_for(queue.engine, "before_cursor_execute")
    def fail_while_down(connection: Any, *_: object) -> None:
        if down.is_set():
            failures.append(threading.current_thread())
            raise connection.dialect.loaded_dbapi.OperationalError("disk I/O error")

    job = queue.actor(run)
    job.send("before")
    queue.work(threads=1)
    assert started.wait(20)
    down.set()
    finish.set()
    eventually(lambda: len(failures) > 5 and len(set(failures)) > 1)
    down.clear()
    job.send("after")
    queue.broker.join("default", timeout=20_000)
    assert done == ["before", "after"]


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("error", [BrokerConnectionError("gone"), RuntimeError("odd")])
def test_nothing_ends_the_thread_that_renews(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    queue = open_queue(lease=0.06)
    renewals = []

    def renew() -> None:
        renewals.append(1)
        raise error

    monkeypatch.setattr(queue.table, "renew", renew)
    queue.broker.consume("default").close()
    eventually(lambda: len(renewals) > 2)


@pytest.mark.parametrize("backend", ["redis"])
@pytest.mark.slow
def test_nothing_ends_the_thread_that_passes_on(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("database.outbox.LONGEST_RETRY_PAUSE", 0.01)
    ran: list[int] = []
    claim: Callable[..., Any] = MessageTable.claim
    calls = []

    def fail_first(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) < 4:
            raise RuntimeError
        return claim(*arguments)

    monkeypatch.setattr(MessageTable, "claim", fail_first)
    queue.actor(ran.append).send(1)
    queue.work()
    eventually(lambda: ran == [1])


@pytest.mark.parametrize("backend", ["sqlite"])
def test_messages_that_could_not_be_given_back_are_not_kept_for_ever(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(queue.broker, DatabaseBroker)
    queue.actor(lambda: None).send()
    consumer = queue.broker.consume("default", prefetch=2)
    message = next(consumer)
    assert message
    with monkeypatch.context() as down:
        down.setattr(queue.table, "_count", fail)
        consumer.requeue([message])
    assert "come back when their leases end" in caplog.text
    # Nobody renews them any more.
    before = queue.rows()[0].due
    queue.table.renew()
    assert queue.rows()[0].due == before
    consumer.close()


def fail(*_: object, **__: object) -> int:
    raise BrokerConnectionError("the database is away")
