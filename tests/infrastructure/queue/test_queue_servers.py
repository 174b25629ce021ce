"""The same commands with PostgreSQL, Redis and RabbitMQ."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import pytest
from click.testing import Result
from dramatiq.brokers.redis import RedisBroker as DramatiqRedisBroker
from flask import Flask

from database import connect
from database.broker import TableBroker
from database.messages import CLAIM, READY
from database.migrations import upgrade
from database.redis_broker import RedisBroker
from tests.infrastructure.servers import RabbitMQ, Redis

Run = Callable[..., Result]
Text = Callable[..., str]
pytestmark = pytest.mark.slow


class Job:
    """A job that runs for as long as the test wants."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.end = threading.Event()
        self.ran: list[int] = []
        self.broken = False

    def __call__(self, number: int) -> None:
        self.started.release()
        assert self.end.wait(20)
        if self.broken:
            raise ValueError(f"{number} is wrong")
        self.ran.append(number)


@pytest.fixture
def job(app: Flask) -> Iterator[Job]:
    job = Job()
    dramatiq.actor(actor_name="job", max_retries=0)(job)
    yield job
    del dramatiq.get_broker().actors["job"]


@pytest.fixture
def work(app: Flask, job: Job) -> Iterator[Callable[[], dramatiq.Worker]]:
    """Starts a worker of one thread."""
    workers = []

    def work() -> dramatiq.Worker:
        workers.append(dramatiq.Worker(dramatiq.get_broker(), worker_timeout=10, worker_threads=1))
        workers[-1].start()
        return workers[-1]

    yield work
    job.end.set()
    for worker in workers:
        worker.stop()


def send(number: int, **options: Any) -> str:
    actor = dramatiq.get_broker().get_actor("job")
    return actor.send_with_options(args=(number,), **options).message_id


def states(output: Text | Run) -> dict[str, str]:
    """The state of each message that is listed."""
    result = output("list", "--json")
    text = result if isinstance(result, str) else result.stdout
    return {message["id"]: message["state"] for message in json.loads(text)}


def wait_until(condition: Callable[[], Any]) -> None:
    for _ in range(400):
        if condition():
            return
        threading.Event().wait(0.05)
    pytest.fail("this took too long")


class TestRedis:
    @pytest.fixture
    def app(self, make_app: Callable[..., Flask], redis_url: str) -> Flask:
        return make_app(QUEUE_URL=redis_url)

    def test_messages_are_followed_from_the_table_to_redis_and_back(
        self, job: Job, work: Callable[[], dramatiq.Worker], output: Text, broker: TableBroker
    ) -> None:
        first = send(1)
        assert states(output) == {first: "waiting"}
        work()
        assert job.started.acquire(timeout=20)
        delayed = send(3, delay=3_600_000)
        others = [send(number) for number in range(4, 10)]
        assert isinstance(broker, RedisBroker)
        wait_until(lambda: broker.client.llen("dramatiq:default") == 5)
        found = states(output)
        # One runs, and a worker of one thread has fetched another.
        assert [found[sent] for sent in (first, delayed, *others)] == [
            "running",
            "delayed",
            "running",
            *["waiting"] * 5,
        ]
        (status,) = json.loads(output("status", "--json"))
        assert (status["waiting"], status["delayed"], status["running"], status["failed"]) == (5, 1, 2, 0)
        assert status["oldest"]
        shown = json.loads(output("show", first[:8], "--json"))
        assert (shown["args"], shown["attempts"], shown["worker"]) == ([1], 1, broker.broker_id)
        assert output("list", "--state", "waiting", "--limit", "5").count("default") == 5

    def test_cancel_and_purge_take_what_waits_and_leave_what_runs(
        self, job: Job, work: Callable[[], dramatiq.Worker], run: Run, output: Text, broker: TableBroker
    ) -> None:
        work()
        ids = [send(number) for number in range(6)]
        assert job.started.acquire(timeout=20)
        assert isinstance(broker, RedisBroker)
        wait_until(lambda: broker.client.llen("dramatiq:default") == 4)
        running = [sent for sent, state in states(output).items() if state == "running"]
        waiting = [sent for sent in ids if sent not in running]
        delayed = send(7, delay=3_600_000)
        assert output("cancel", waiting[0], delayed) == "jobs cancelled: 2\n"
        result = run("cancel", running[0])
        assert (result.exit_code, result.stderr.count("is running")) == (1, 1)
        assert output("purge", "--yes") == "jobs dropped: 3\n"
        assert sorted(states(output)) == sorted(running)
        # The bodies are still there, for another worker if this one dies.
        assert broker.client.hlen("dramatiq:default.msgs") == 2
        job.end.set()
        broker.join("default", timeout=20_000)
        assert len(job.ran) == 2
        assert broker.client.keys("dramatiq:default*") == []

    def test_what_a_dead_worker_holds_waits_and_can_be_cancelled(
        self, job: Job, output: Text, broker: TableBroker
    ) -> None:
        assert isinstance(broker, RedisBroker)
        ids = [send(1), send(2)]
        for message in broker.table.claim("default", 2)[0]:
            DramatiqRedisBroker.enqueue(broker, message._message)
            broker.table.finish(message)
        broker.do_fetch("default", 2)
        assert states(output) == dict.fromkeys(ids, "running")
        broker.client.zadd("dramatiq:__heartbeats__", {broker.broker_id: 1})
        assert states(output) == dict.fromkeys(ids, "waiting")
        assert output("cancel", ids[0]) == "jobs cancelled: 1\n"
        assert output("purge", "--yes") == "jobs dropped: 1\n"
        assert broker.client.keys("*") == [b"dramatiq:__heartbeats__"]

    def test_what_is_being_passed_on_waits_and_is_too_late_to_cancel(
        self, job: Job, run: Run, output: Text, broker: TableBroker
    ) -> None:
        sent = send(1)
        broker.table.claim("default", 1)
        assert states(output) == {sent: "waiting"}
        (status,) = json.loads(output("status", "--json"))
        assert (status["waiting"], status["running"]) == (1, 0)
        result = run("cancel", sent)
        assert (result.exit_code, result.stderr) == (
            1,
            f"Error: {sent}: was taken at this moment, and is not cancelled\n",
        )
        assert output("purge", "--yes") == "jobs dropped: 0\n"
        assert states(output) == {sent: "waiting"}

    def test_a_failed_job_is_retried_from_the_table(
        self, job: Job, work: Callable[[], dramatiq.Worker], output: Text, broker: TableBroker
    ) -> None:
        job.broken = True
        job.end.set()
        sent = send(1)
        work()
        wait_until(lambda: states(output) == {sent: "failed"})
        assert output("failed").splitlines()[1].endswith("ValueError: 1 is wrong")
        job.broken = False
        assert output("retry", sent) == "jobs that wait again: 1\n"
        wait_until(lambda: job.ran == [1])
        broker.join("default", timeout=20_000)
        assert states(output) == {}

    def test_many_thousand_are_purged_and_found(self, job: Job, output: Text, broker: TableBroker) -> None:
        assert isinstance(broker, RedisBroker)
        ids = []
        for number in range(1200):
            message = dramatiq.Message[None]("default", "job", (number,), {}, {})
            DramatiqRedisBroker.enqueue(broker, message)
            ids.append(message.message_id)
        assert output("show", ids[1100]).startswith(f"id         {ids[1100]}")
        assert output("purge", "--yes") == "jobs dropped: 1200\n"
        assert broker.client.keys("dramatiq:default*") == []

    def test_a_server_that_is_down_is_one_line(
        self, job: Job, refusal: Text, redis_server: Redis, redis_url: str
    ) -> None:
        redis_server.stop()
        for command in (["status"], ["list"], ["show", "0" * 8], ["purge", "--yes"]):
            assert refusal(1, *command).startswith("Error: queue: Error 111 connecting to 127.0.0.1:")
        redis_server.start()


class TestRabbitMQ:
    UNSEEN = "RabbitMQ does not show its messages; those that wait are counted and purged, not listed or cancelled."

    @pytest.fixture
    def app(self, make_app: Callable[..., Flask], rabbitmq_url: str) -> Flask:
        return make_app(QUEUE_URL=rabbitmq_url)

    def test_what_cannot_be_shown_is_said(
        self, job: Job, work: Callable[[], dramatiq.Worker], run: Run, broker: TableBroker
    ) -> None:
        stored = send(0)
        assert states(run) == {stored: "waiting"}
        # No worker has made the queues on the server yet.
        broker.declare_queue("other")
        found = json.loads(run("status", "--json").stdout)
        assert [(row["queue"], row["waiting"]) for row in found] == [("default", 1), ("other", 0)]
        assert run("purge", "--queue", "other", "--yes").stdout == "jobs dropped: 0\n"
        work()
        assert job.started.acquire(timeout=20)
        delayed = send(1, delay=3_600_000)
        ids = [send(number) for number in range(2, 10)]

        def status() -> tuple[Any, ...]:
            result = run("status", "--json")
            assert (result.exit_code, result.stderr) == (0, f"{self.UNSEEN}\n")
            row, _ = json.loads(result.stdout)
            return row["waiting"], row["delayed"], row["running"], row["failed"]

        # A worker fetches some ahead.
        wait_until(lambda: 0 < status()[0] < 8 and status()[1:] == (1, None, 0) and len(states(run)) == 1)
        assert run("status").stdout.splitlines()[1].split()[3] == "-"
        result = run("list")
        assert (result.stdout.count("delayed"), result.stderr) == (1, f"{self.UNSEEN}\n")
        result = run("cancel", ids[-1])
        assert (result.exit_code, result.stderr) == (1, f"Error: {ids[-1]}: there is no such message; {self.UNSEEN}\n")
        assert run("show", ids[-1]).exit_code == 2
        waiting = status()[0]
        assert run("cancel", delayed).stdout == "jobs cancelled: 1\n"
        assert run("purge", "--yes").stdout == f"jobs dropped: {waiting}\n"
        assert status() == (0, 0, None, 0)
        job.end.set()
        broker.join("default", timeout=20_000)
        assert len(job.ran) == 9 - waiting

    def test_a_failed_job_is_retried_from_the_table(
        self, job: Job, work: Callable[[], dramatiq.Worker], run: Run, broker: TableBroker
    ) -> None:
        job.broken = True
        job.end.set()
        sent = send(1)
        work()
        wait_until(lambda: states(run) == {sent: "failed"})
        job.broken = False
        assert run("retry", "--all").stdout == "jobs that wait again: 1\n"
        wait_until(lambda: job.ran == [1])

    def test_a_server_that_is_down_is_one_line(
        self, job: Job, refusal: Text, rabbitmq_server: RabbitMQ, rabbitmq_url: str
    ) -> None:
        rabbitmq_server.stop()
        for command in (["status"], ["purge", "--yes"]):
            line = refusal(1, *command)
            assert line.startswith("Error: queue: RabbitMQ cannot be reached: ")
            assert "refused" in line


class TestPostgreSQL:
    @pytest.fixture
    def app(self, make_app: Callable[..., Flask], postgres_url: str) -> Flask:
        engine = connect(postgres_url)
        upgrade(engine)
        engine.dispose()
        return make_app(DATABASE_URL=postgres_url)

    def test_messages_are_shown_cancelled_retried_and_purged(
        self, job: Job, work: Callable[[], dramatiq.Worker], run: Run, output: Text, broker: TableBroker
    ) -> None:
        job.broken = True
        work()
        failed = send(1)
        assert job.started.acquire(timeout=20)
        assert states(output) == {failed: "running"}
        assert run("cancel", failed).exit_code == 1
        job.end.set()
        wait_until(lambda: states(output) == {failed: "failed"})
        job.broken = False
        job.end.clear()
        assert output("retry", "--all") == "jobs that wait again: 1\n"
        assert job.started.acquire(timeout=20)
        delayed = [send(number, delay=3_600_000) for number in range(2, 5)]
        (status,) = json.loads(output("status", "--json"))
        assert (status["waiting"], status["delayed"], status["running"], status["failed"]) == (0, 3, 1, 0)
        assert output("cancel", delayed[0][:8]) == "jobs cancelled: 1\n"
        assert json.loads(output("show", delayed[1], "--json"))["args"] == [3]
        assert output("purge", "--yes") == "jobs dropped: 2\n"
        assert states(output) == {failed: "running"}
        job.end.set()
        wait_until(lambda: job.ran == [1])

    def test_a_message_is_claimed_or_cancelled_or_purged_and_never_two_of_them(
        self, job: Job, output: Text, run: Run, broker: TableBroker
    ) -> None:
        ids = [send(number) for number in range(300)]
        claimed: list[int] = []

        def claim() -> None:
            for _ in range(100):
                messages, _ = broker.table.claim("default", 1)
                claimed.extend(message.row_id for message in messages)

        def drop(*command: str) -> int:
            return int(run(*command).stdout.rpartition(" ")[2] or 0)

        with ThreadPoolExecutor(2) as pool:
            workers = [pool.submit(claim) for _ in range(2)]
            dropped = sum(drop("cancel", sent) for sent in ids[:80]) + drop("purge", "--yes")
            for worker in workers:
                worker.result()
        assert 0 < dropped < 300
        assert len(claimed) == len(set(claimed)) == broker.table.count("default") == 300 - dropped

    @pytest.mark.parametrize("command", [("purge", "--yes"), ("cancel",)])
    def test_a_message_whose_claim_is_not_committed_yet_is_not_dropped(
        self, job: Job, run: Run, broker: TableBroker, command: tuple[str, ...]
    ) -> None:
        sent = send(1)
        ids = [sent] if command == ("cancel",) else []
        claimed = {"of_queue": "default", "limit": 1, "lease": 30, "claimant": "somebody"}
        with ThreadPoolExecutor(1) as pool:
            with broker.table.engine.begin() as connection:
                assert len(connection.execute(CLAIM[READY], claimed).all()) == 1
                dropping = pool.submit(run, *command, *ids)
                wait_until(lambda: locks(broker))
            assert dropping.result().stdout.endswith(": 0\n")
        assert states(run) == {sent: "running"}


def locks(broker: TableBroker) -> bool:
    """Whether somebody waits for a lock."""
    with broker.table.engine.connect() as connection:
        return bool(connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar())
