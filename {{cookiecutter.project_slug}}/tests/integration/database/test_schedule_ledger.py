"""Each slot becomes a job once, in one transaction with its row in the ledger."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dramatiq
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from database import schedule, sessions
from database.broker import DatabaseBroker, QueueMessage
from database.schedule import Schedule, ScheduleSlot, run, send_due

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Service:
    """A broker that stores messages in the session of the running transaction."""

    def __init__(self, engine: Engine) -> None:
        self.sessions = sessions(engine)
        self.current: ContextVar[Session | None] = ContextVar("current", default=None)
        self.broker = DatabaseBroker(engine, self.current.get)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self.sessions.begin() as session:
            token = self.current.set(session)
            try:
                yield session
            finally:
                self.current.reset(token)

    def hourly(self, name: str = "report") -> Schedule:
        actor = dramatiq.actor(broker=self.broker, actor_name=name)(lambda slot: None)
        return Schedule(actor, "0 * * * *", ZoneInfo("UTC"), "all")

    def send(self, due: Schedule, now: datetime) -> int:
        with self.transaction() as session:
            return send_due(due, session, now)

    def sent(self) -> list[tuple[str, str]]:
        """Pairs of actor and slot of all messages, as they were sent."""
        with self.sessions() as session:
            payloads = session.scalars(select(QueueMessage.payload).order_by(QueueMessage.id)).all()
        messages = [dramatiq.Message[None].decode(payload) for payload in payloads]
        return [(message.actor_name, message.args[0]) for message in messages]

    def ledger(self) -> list[tuple[datetime, str | None]]:
        with self.sessions() as session:
            rows = session.execute(select(ScheduleSlot.slot, ScheduleSlot.message_id).order_by(ScheduleSlot.slot))
            return [(row.slot, row.message_id) for row in rows]


@pytest.fixture
def service(engine: Engine) -> Service:
    return Service(engine)


def test_the_first_sight_of_a_schedule_only_marks_it(service: Service) -> None:
    assert service.send(service.hourly(), NOON) == 0
    assert service.sent() == []
    assert service.ledger() == [(NOON, None)]


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
    assert service.ledger() == [(NOON, None), (NOON + HOUR, message_id)]


def test_slot_and_message_are_stored_together_or_not_at_all(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    with suppress(KeyError), service.transaction() as session:
        assert send_due(hourly, session, NOON + HOUR) == 1
        raise KeyError
    assert (service.sent(), len(service.ledger())) == ([], 1)
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
    """A schedule as another scheduler sees it that read the ledger too early."""

    def due_slots(self, since: datetime, now: datetime) -> Iterator[datetime]:
        yield from (NOON, NOON + HOUR)


def test_a_slot_that_somebody_took_meanwhile_is_left_to_them(service: Service) -> None:
    hourly = service.hourly()
    service.send(hourly, NOON)
    late = Late(hourly.actor, hourly.cron, hourly.timezone, hourly.catch_up)
    assert service.send(late, NOON + HOUR) == 1
    assert service.sent() == [("report", "2026-01-01T13:00:00+00:00")]


@pytest.fixture
def loop(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts the scheduler's loop, one moment before a slot, again and again."""
    monkeypatch.setattr(schedule, "SCHEDULES", {name: service.hourly(name) for name in ("one", "two")})
    for one in schedule.SCHEDULES.values():
        service.send(one, NOON)
    monkeypatch.setattr(schedule, "utc_now", lambda: NOON + 2 * HOUR - timedelta(milliseconds=1))
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
            raise OperationalError("BEGIN", None, Exception("database is locked"))
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
