"""Counting across processes, which here are engines of their own on one database."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import limits.storage
import pytest
from limits.errors import StorageError
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import OperationalError

from database import Base, connect, sessions
from database.rate_limits import REMOVE_EXPIRED, DatabaseStorage, RateLimit

YEARS = 4 * 365 * 86400


@pytest.fixture
def engine(empty: Engine) -> Engine:
    Base.metadata.tables["rate_limit"].create(empty)
    return empty


@pytest.fixture
def storage(engine: Engine) -> DatabaseStorage:
    return DatabaseStorage(engine=engine)


@pytest.fixture
def another_process(url: str) -> Iterator[DatabaseStorage]:
    other = connect(url)
    yield DatabaseStorage(engine=other)
    other.dispose()


def move(engine: Engine, seconds: float, key: str = "a") -> None:
    """Let a window be one that was counted earlier, or in the future."""
    moved = {"started": RateLimit.started + seconds, "expires": RateLimit.expires + seconds}
    with engine.begin() as connection:
        connection.execute(update(RateLimit).where(RateLimit.key == key).values(moved))


def test_hits_are_counted_by_key_until_the_window_ends(engine: Engine, storage: DatabaseStorage) -> None:
    assert [storage.incr("a", 60), storage.incr("a", 60), storage.incr("b", 60, amount=5)] == [1, 2, 5]
    move(engine, -50)
    assert storage.get("a") == 2
    assert storage.get_expiry("a") == pytest.approx(time.time() + 10, abs=5)
    assert storage.incr("a", 60) == 3
    assert storage.get_expiry("a") == pytest.approx(time.time() + 10, abs=5)
    move(engine, -10)
    assert storage.get("a") == 0
    assert storage.incr("a", 60) == 1
    assert storage.get_expiry("a") == pytest.approx(time.time() + 60, abs=5)


def test_a_window_of_a_clock_that_was_wrong_counts_for_nothing(engine: Engine, storage: DatabaseStorage) -> None:
    for key in "ab":
        storage.incr(key, 60, amount=10)
        move(engine, YEARS, key)
    assert storage.get("a") == 0
    assert storage.get_expiry("a") == pytest.approx(time.time(), abs=5)
    assert storage.incr("a", 60) == 1
    assert storage.get_expiry("a") == pytest.approx(time.time() + 60, abs=5)
    with sessions(engine).begin() as session:
        session.execute(REMOVE_EXPIRED)
        assert session.scalars(select(RateLimit.key)).all() == ["a"]


def test_a_key_that_was_never_hit_has_no_hits_and_ends_now(storage: DatabaseStorage) -> None:
    assert storage.get("a") == 0
    assert storage.get_expiry("a") == pytest.approx(time.time(), abs=5)


def test_processes_count_together(storage: DatabaseStorage, another_process: DatabaseStorage) -> None:
    def hit(number: int) -> int:
        return (storage, another_process)[number % 2].incr("a", 60)

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(hit, range(40)))
    assert sorted(counts) == list(range(1, 41))
    assert storage.get("a") == another_process.get("a") == 40


def test_one_key_or_all_can_be_forgotten(storage: DatabaseStorage) -> None:
    for key in "abc":
        storage.incr(key, 60)
    storage.clear("a")
    assert (storage.get("a"), storage.get("b")) == (0, 1)
    storage.reset()
    assert (storage.get("b"), storage.get("c")) == (0, 0)


def test_only_windows_that_have_ended_are_removed(engine: Engine, storage: DatabaseStorage) -> None:
    for key in "abc":
        storage.incr(key, 60)
    move(engine, -60, "a")
    move(engine, -50, "b")
    with sessions(engine).begin() as session:
        session.execute(REMOVE_EXPIRED)
        assert set(session.scalars(select(RateLimit.key))) == {"b", "c"}


def test_flask_limiter_finds_it_by_its_url(engine: Engine) -> None:
    storage = limits.storage.storage_from_string("database://", engine=engine)  # type: ignore[arg-type]
    assert isinstance(storage, DatabaseStorage)
    assert storage.check()
    assert storage.incr("a", 60) == 1


@pytest.mark.parametrize(("wrap", "error"), [(False, OperationalError), (True, StorageError)])
def test_a_failing_database_is_an_error_that_the_limiter_knows(
    engine: Engine, wrap: bool, error: type[Exception]
) -> None:
    storage = DatabaseStorage(wrap_exceptions=wrap, engine=engine)
    with sessions(engine).begin() as writer:
        writer.add(RateLimit(key="a", hits=1, started=0, expires=0))
        writer.flush()
        with pytest.raises(error):
            storage.incr("a", 60)
    assert issubclass(OperationalError, storage.base_exceptions)
