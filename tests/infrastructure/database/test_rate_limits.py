"""Counting across processes, which here are engines of their own on one database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import OperationalError

from database import Base, connect, sessions
from database.rate_limits import REMOVE_EXPIRED, RateLimit, hit

YEARS = 4 * 365 * 86400
LIMIT = "2 per minute"


@pytest.fixture
def engine(empty: Engine) -> Engine:
    Base.metadata.tables["rate_limit"].create(empty)
    return empty


@pytest.fixture
def another_process(url: str) -> Iterator[Engine]:
    other = connect(url)
    yield other
    other.dispose()


def move(engine: Engine, seconds: float, key: str = "a") -> None:
    """Let a window be one that was counted earlier, or in the future."""
    moved = {"started": RateLimit.started + seconds, "expires": RateLimit.expires + seconds}
    with engine.begin() as connection:
        connection.execute(update(RateLimit).where(RateLimit.key == f"{key} {LIMIT}").values(moved))


def test_hits_beyond_the_limit_wait_until_the_window_ends(engine: Engine) -> None:
    assert [hit(engine, LIMIT, "a") for _ in range(2)] == [0, 0]
    assert hit(engine, LIMIT, "b") == 0
    move(engine, -50)
    assert hit(engine, LIMIT, "a") == pytest.approx(10, abs=5)
    move(engine, -10)
    assert [hit(engine, LIMIT, "a") for _ in range(2)] == [0, 0]
    assert hit(engine, LIMIT, "a") == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("limit", "window"),
    [("0 per second", 1), ("0 per 10 minutes", 600), ("0 per hour", 3600), ("0 per 2 days", 172800)],
)
def test_a_limit_is_written_as_people_say_it(engine: Engine, limit: str, window: int) -> None:
    assert window - 5 < hit(engine, limit, "a") <= window


def test_each_limit_counts_for_itself(engine: Engine) -> None:
    assert [hit(engine, LIMIT, "a") > 0 for _ in range(3)] == [False, False, True]
    assert hit(engine, "3 per minute", "a") == 0


def test_a_window_of_a_clock_that_was_wrong_counts_for_nothing(engine: Engine) -> None:
    for key in "ab":
        assert [hit(engine, LIMIT, key) > 0 for _ in range(3)] == [False, False, True]
        move(engine, YEARS, key)
    assert hit(engine, LIMIT, "a") == 0
    with sessions(engine).begin() as session:
        session.execute(REMOVE_EXPIRED)
        assert session.scalars(select(RateLimit.key)).all() == [f"a {LIMIT}"]


def test_processes_count_together(engine: Engine, another_process: Engine) -> None:
    def is_refused(number: int) -> bool:
        return hit((engine, another_process)[number % 2], "30 per hour", "a") > 0

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(is_refused, range(40))) == 10


def test_only_windows_that_have_ended_are_removed(engine: Engine) -> None:
    for key in "abc":
        hit(engine, LIMIT, key)
    move(engine, -60, "a")
    move(engine, -50, "b")
    with sessions(engine).begin() as session:
        session.execute(REMOVE_EXPIRED)
        assert set(session.scalars(select(RateLimit.key))) == {f"b {LIMIT}", f"c {LIMIT}"}


def test_a_database_that_stays_locked_is_an_error_and_no_permission(engine: Engine) -> None:
    with sessions(engine).begin() as writer:
        writer.add(RateLimit(key=f"a {LIMIT}", hits=1, started=0, expires=0))
        writer.flush()
        with pytest.raises(OperationalError):
            hit(engine, LIMIT, "a")
