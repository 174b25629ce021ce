"""Each slot becomes a job once, in one transaction with its row in the ledger."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from database import schedule, sessions
from database.broker import DatabaseBroker
from database.messages import MessageTable, QueueMessage
from database.schedule import KnownSchedule, Schedule, ScheduleSlot, SlotOutcomes, forget_old, run, send_due, send_slot

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Service:
    """A broker that stores messages in the session of the running transaction."""

    def __init__(self, engine: Engine) -> None:
        self.sessions = sessions(engine)
        self.current: ContextVar[Session | None] = ContextVar("current", default=None)
        self.broker = DatabaseBroker(MessageTable(engine, self.current.get))
        self.broker.add_middleware(SlotOutcomes(engine))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self.sessions.begin() as session:
            token = self.current.set(session)
            try:
                yield session
            finally:
                self.current.reset(token)

    def hourly(self, name: str = "report", job: Callable[[str], None] = lambda slot: None, **options: Any) -> Schedule:
        actor = dramatiq.actor(broker=self.broker, actor_name=name, **options)(job)
        return Schedule(actor, "0 * * * *", ZoneInfo("UTC"), "all", timedelta(0))

    def send(self, due: Schedule, now: datetime, **options: bool) -> int:
        with self.transaction() as session:
            return send_due(due, session, now, **options)

    def sent(self) -> list[tuple[str, str]]:
        """Pairs of actor and slot of all messages, as they were sent."""
        with self.sessions() as session:
            payloads = session.scalars(select(QueueMessage.payload).order_by(QueueMessage.id)).all()
        messages = [dramatiq.Message[None].decode(payload) for payload in payloads]
        return [(message.actor_name, message.args[0]) for message in messages]

    def message_ids(self) -> list[str]:
        with self.sessions() as session:
            return list(session.scalars(select(QueueMessage.message_id).order_by(QueueMessage.id)))

    def ledger(self) -> list[ScheduleSlot]:
        with self.sessions() as session:
            return list(session.scalars(select(ScheduleSlot).order_by(ScheduleSlot.slot)))

    def outcomes(self) -> list[str]:
        return [slot.outcome for slot in self.ledger()]

    def work(self) -> None:
        """Let a worker run until the queue is empty."""
        worker = dramatiq.Worker(self.broker, worker_timeout=10, worker_threads=1)
        worker.start()
        try:
            self.broker.join("default", timeout=20_000)
        finally:
            worker.stop()


@pytest.fixture
def service(engine: Engine) -> Iterator[Service]:
    service = Service(engine)
    yield service
    service.broker.close()


def test_the_first_sight_of_a_schedule_only_marks_it(service: Service) -> None:
    assert service.send(service.hourly(), NOON) == 0
    assert service.sent() == []
    assert service.ledger() == []


def test_a_due_slot_is_sent_once_and_gets_its_time(service: Service) -> None:
    hourly = service.hourly()
    sent = [service.send(hourly, NOON + hours * HOUR) for hours in (0, 1, 1, 1.5, 3)]
    assert sent == [0, 1, 0, 0, 2]
    assert service.sent() == [("report", f"2026-01-01T{hour}:00:00+00:00") for hour in (13, 14, 15)]


def test_the_ledger_tells_the_message_of_each_slot(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    service.send(hourly, NOON + HOUR)
    with service.sessions() as session:
        payload = session.scalars(select(QueueMessage.payload)).one()
    message_id = dramatiq.Message[None].decode(payload).message_id
    (slot,) = service.ledger()
    assert (slot.slot, slot.message_id, slot.outcome) == (NOON + HOUR, message_id, "sent")


def test_slot_and_message_are_stored_together_or_not_at_all(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    with suppress(KeyError), service.transaction() as session:
        assert send_due(hourly, session, NOON + HOUR) == 1
        raise KeyError
    assert (service.sent(), service.ledger()) == ([], [])
    assert service.send(hourly, NOON + HOUR) == 1


def test_schedules_do_not_mind_each_other(service: Service) -> None:
    one, two = service.hourly("one"), service.hourly("two")
    service.send(one, NOON)
    assert service.send(two, NOON + HOUR) == 0
    assert service.send(one, NOON + HOUR) == 1
    assert service.sent() == [("one", "2026-01-01T13:00:00+00:00")]


def test_many_schedulers_send_each_slot_once(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    together = threading.Barrier(4)

    def tick(_: int) -> int:
        together.wait()
        return service.send(hourly, NOON + 3 * HOUR)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(tick, range(4))) == 3
    assert len(service.sent()) == 3


class Late(Schedule):
    """A schedule as another scheduler sees it that does not know what is in the ledger."""

    def due_slots(self, since: datetime, now: datetime) -> Iterator[datetime]:
        yield NOON + HOUR


def test_a_slot_that_somebody_took_meanwhile_is_left_to_them(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    service.send(hourly, NOON + HOUR)
    late = Late(hourly.actor, hourly.when, hourly.timezone, hourly.catch_up, hourly.jitter)
    service.send(late, NOON + HOUR)
    assert service.sent() == [("report", "2026-01-01T13:00:00+00:00")]


@pytest.fixture
def loop(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts the scheduler's loop, one moment before a slot, again and again."""
    monkeypatch.setattr(schedule, "SCHEDULES", {name: service.hourly(name) for name in ("one", "two")})
    for one in schedule.SCHEDULES.values():
        service.send(one, NOON)
    monkeypatch.setattr(schedule, "database_now", lambda _: NOON + 2 * HOUR - timedelta(milliseconds=1))
    stop = threading.Event()
    threads = []

    def start(transaction: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=run, args=(transaction, stop)))
        threads[0].start()

    yield start
    stop.set()
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_the_loop_goes_on_after_an_error(
    service: Service, loop: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    passes: list[None] = []
    both_sent = threading.Event()

    @contextmanager
    def transaction() -> Iterator[Session]:
        passes.append(None)
        if len(passes) in (1, 4):
            raise KeyError("something nobody thought of")
        with service.transaction() as session:
            yield session
        if len(passes) > 6:
            both_sent.set()

    loop(transaction)
    assert both_sent.wait(10)
    slot = "2026-01-01T13:00:00+00:00"
    assert service.sent() == [("two", slot), ("one", slot)]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"schedule {name}: could not send; trying again" for name in ("one", "two")]


def test_the_loop_waits_longer_and_longer_for_a_database_that_is_down_and_outlives_a_night_of_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schedule, "SCHEDULES", {name: service.hourly(name) for name in ("one", "two")})
    pauses: list[float] = []
    stop = threading.Event()

    @contextmanager
    def transaction() -> Iterator[Session]:
        if len(pauses) < 2000:
            raise OperationalError("BEGIN", None, Exception("the server is restarting"))
        with service.transaction() as session:
            yield session

    def pause(timeout: float) -> bool:
        pauses.append(timeout)
        if len(pauses) > 2000:
            stop.set()
        return False

    monkeypatch.setattr(stop, "wait", pause)
    run(transaction, stop)
    assert pauses[:6] == [2, 4, 8, 16, 30, 30]
    with service.sessions() as session:
        assert set(session.scalars(select(KnownSchedule.name))) == {"one", "two"}
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines[0] == "No jobs could be sent, next try in 2 s: the server is restarting"
    assert len(lines) == 2000


def test_the_ledger_tells_how_the_job_of_a_slot_has_ended(service: Service) -> None:
    outcomes = []

    def job(slot: str) -> None:
        outcomes.append(service.outcomes())
        if slot.startswith("2026-01-01T13"):
            raise ValueError

    hourly = service.hourly(job=job, max_retries=0)
    service.send(hourly, NOON)
    service.send(hourly, NOON + 2 * HOUR)
    service.work()
    assert outcomes[0] == ["sent", "sent"]
    assert service.outcomes() == ["failed", "done"]
    assert all(slot.finished for slot in service.ledger())


def test_a_slot_whose_job_is_too_old_to_run_has_failed(service: Service) -> None:
    hourly = service.hourly(max_age=1)
    with service.transaction() as session:
        old = hourly.message(NOON).copy()
        object.__setattr__(old, "message_timestamp", 0)
        session.add(ScheduleSlot(schedule="report", slot=NOON, outcome="sent"))
        service.broker.enqueue(old)
    service.work()
    assert service.outcomes() == ["failed"]


def test_a_disabled_schedule_sends_nothing_and_catches_nothing_up(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    service.send(hourly, NOON + 2 * HOUR, enabled=False)
    assert service.sent() == []
    assert service.outcomes() == ["skipped", "skipped"]
    assert service.send(hourly, NOON + 3 * HOUR) == 1
    assert service.sent() == [("report", "2026-01-01T15:00:00+00:00")]


def test_a_schedule_that_was_changed_begins_anew(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    often = dataclasses.replace(hourly, when="*/10 * * * *")
    assert service.send(often, NOON + 2.55 * HOUR) == 0
    assert service.send(often, NOON + 2.7 * HOUR) == 1
    assert service.sent() == [("report", "2026-01-01T14:40:00+00:00")]


def test_two_versions_of_a_schedule_that_take_turns_lose_no_slot(service: Service) -> None:
    old = service.hourly()
    new = dataclasses.replace(old, when="*/30 * * * *")
    service.send(old, NOON)
    for seconds in range(0, 3700, 20):
        service.send((old, new)[seconds // 20 % 2], NOON + timedelta(seconds=seconds))
    assert service.sent() == [("report", f"2026-01-01T{time}:00+00:00") for time in ("12:30", "13:00")]


def test_of_very_many_missed_slots_some_are_sent_at_a_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SLOTS_AT_ONCE", 2)
    hourly = service.hourly()
    service.send(hourly, NOON)
    assert [service.send(hourly, NOON + 5 * HOUR) for _ in range(4)] == [2, 2, 1, 0]


def test_jobs_start_at_random_moments_within_the_jitter(service: Service) -> None:
    hourly = dataclasses.replace(service.hourly(), jitter=timedelta(minutes=10))
    service.send(hourly, NOON)
    service.send(hourly, NOON + 20 * HOUR)
    with service.sessions() as session:
        now = schedule.database_now(session).timestamp()
        delays = [due - now for due in session.scalars(select(QueueMessage.due))]
    assert len({round(delay) for delay in delays}) > 5
    assert all(0 <= delay + 5 <= 605 for delay in delays)


def test_a_slot_is_sent_again_only_if_that_is_asked_for(service: Service) -> None:
    hourly = service.hourly()
    for again in ((), ("failed",), ("sent",)):
        with service.transaction() as session:
            send_slot(hourly, session, NOON, again=again)
    assert len(service.sent()) == 2
    assert service.outcomes() == ["sent"]
    assert service.ledger()[0].message_id == service.message_ids()[1]


def test_old_slots_and_schedules_that_are_gone_are_forgotten(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, gone = service.hourly("kept"), service.hourly("gone")
    monkeypatch.setattr(schedule, "SCHEDULES", {"kept": kept})
    for one in (kept, gone):
        service.send(one, NOON)
        service.send(one, NOON + HOUR)
    with service.transaction() as session:
        assert forget_old(session, NOON) == 0
        assert forget_old(session, datetime.now(UTC) + HOUR) == 2
        assert list(session.scalars(select(KnownSchedule.name))) == ["kept"]
    # What was dealt with stays dealt with.
    assert service.send(kept, NOON + HOUR) == 0


def test_the_loop_stops_at_once_while_it_waits(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SCHEDULES", {})
    waiting, stop = threading.Event(), threading.Event()
    wait = stop.wait

    def announce(timeout: float | None = None) -> bool:
        assert timeout == schedule.LONGEST_PAUSE
        waiting.set()
        return wait(timeout)

    monkeypatch.setattr(stop, "wait", announce)
    thread = threading.Thread(target=run, args=(service.transaction, stop))
    thread.start()
    assert waiting.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
