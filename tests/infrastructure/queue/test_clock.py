"""A clock that was wrong for a moment stops nothing. Here the database's clock is set, by a function of its own."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from database import connect
from tests.infrastructure.queue.conftest import OpenQueue
from tests.infrastructure.queue.test_claims import claim, consume, take
from tests.infrastructure.queue.workers import Place

YEARS = 4 * 365 * 86400
SHADOW = """
    CREATE TABLE clock (ahead integer); INSERT INTO clock VALUES (0);
    CREATE FUNCTION public.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS
    'SELECT pg_catalog.statement_timestamp() + (SELECT ahead FROM public.clock) * interval ''1 second''';
    DO 'BEGIN EXECUTE format(''ALTER DATABASE %%I SET search_path = public, pg_catalog'', current_database()); END'
"""


@pytest.fixture
def set_clock(place: Place) -> Iterator[Callable[[int], None]]:
    """Sets how many seconds the database's clock is ahead."""
    ahead = 0

    def shadow(connection: Any, _record: object) -> None:
        if hasattr(connection, "create_function"):
            connection.create_function("julianday", 1, lambda _: (time.time() + ahead) / 86400 + 2440587.5)

    def set_clock(seconds: int) -> None:
        nonlocal ahead
        ahead = seconds
        if engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                connection.execute(text("UPDATE clock SET ahead = :ahead"), {"ahead": ahead})

    engine = connect(place.database)
    event.listen(Engine, "connect", shadow)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql(SHADOW)
    yield set_clock
    event.remove(Engine, "connect", shadow)
    engine.dispose()


@pytest.mark.parametrize("restarted", [True, False])
def test_when_the_clock_is_right_again_nothing_waits_for_years(
    set_clock: Callable[[int], None], open_queue: OpenQueue, caplog: pytest.LogCaptureFixture, restarted: bool
) -> None:
    living, killed = open_queue(threads=0), open_queue(threads=3)
    consumer, dying = consume(living), consume(killed)
    set_clock(YEARS)
    assert take(consumer, 1) == []
    living.send(1, 2, 3)
    failed, retried, _taken = (claim(dying) for _ in range(3))
    failed.fail()
    dying.nack(failed)
    killed.broker.enqueue(retried, delay=20_000)  # type: ignore[arg-type]
    dying.ack(retried)
    living.send(4)
    living.send(5, delay=50_000)
    assert min(row.due for row in living.rows()) > time.time() + YEARS - 60
    assert not caplog.records
    set_clock(0)
    living.broker.threads = 9
    if restarted:
        consumer = consume(living)
    assert take(consumer, 2) == [4]
    now = time.time() + 1
    assert all(row.due < now + {1: 0, 2: 20, 3: 30, 4: 30, 5: 50}[row.id] for row in living.rows())
    assert "The clock was ahead: 5 jobs have new times." in caplog.text
    living.move_clock(60)
    assert sorted(take(consumer, 4)) == [2, 3, 5]


def test_a_clock_that_is_right_changes_no_times(open_queue: OpenQueue, caplog: pytest.LogCaptureFixture) -> None:
    queue = open_queue(threads=2)
    queue.send(1, delay=50_000)
    queue.send(2)
    take(consume(queue), 2)
    before = [row.due for row in queue.rows()]
    take(consume(open_queue()), 2)
    assert [row.due for row in queue.rows()] == before
    assert not caplog.records
