"""Counting across processes, which here are engines of their own on one database."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import limits.storage
import pytest
from limits.errors import StorageError
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from database import connect, rate_limits, sessions
from database.rate_limits import DatabaseStorage, RateLimit, remove_expired


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The time as rate limits see it; `clock.time.return_value` sets it."""
    clock = Mock(time=Mock(return_value=1000.0))
    monkeypatch.setattr(rate_limits, "time", clock)
    return clock


@pytest.fixture
def storage(engine: Engine) -> DatabaseStorage:
    return DatabaseStorage(engine=engine)


@pytest.fixture
def another_process(engine: Engine) -> Iterator[DatabaseStorage]:
    other = connect(str(engine.url))
    yield DatabaseStorage(engine=other)
    other.dispose()


def test_hits_are_counted_by_key_until_the_window_ends(clock: Mock, storage: DatabaseStorage) -> None:
    assert [storage.incr("a", 60), storage.incr("a", 60), storage.incr("b", 60, amount=5)] == [1, 2, 5]
    clock.time.return_value = 1059.9
    assert (storage.get("a"), storage.get_expiry("a")) == (2, 1060.0)
    clock.time.return_value = 1060.0
    assert (storage.get("a"), storage.get_expiry("a")) == (0, 1060.0)
    assert storage.incr("a", 60) == 1
    assert storage.get_expiry("a") == 1120.0


def test_a_hit_does_not_make_the_window_longer(clock: Mock, storage: DatabaseStorage) -> None:
    storage.incr("a", 60)
    clock.time.return_value = 1030.0
    storage.incr("a", 60)
    assert storage.get_expiry("a") == 1060.0


@pytest.mark.parametrize("now", [1000.0, 5000.0])
def test_a_key_without_a_running_window_has_no_hits_and_ends_now(
    clock: Mock, storage: DatabaseStorage, now: float
) -> None:
    storage.incr("a", 60)
    clock.time.return_value = now
    key = "b" if now == 1000.0 else "a"
    assert (storage.get(key), storage.get_expiry(key)) == (0, now)


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
    assert storage.reset() == 2
    assert storage.get("b") == 0


def test_only_windows_that_have_ended_are_removed(clock: Mock, engine: Engine, storage: DatabaseStorage) -> None:
    for key, expiry in {"a": 10, "b": 20, "c": 30}.items():
        storage.incr(key, expiry)
    clock.time.return_value = 1020.0
    with sessions(engine).begin() as session:
        assert remove_expired(session) == 2
    with sessions(engine)() as session:
        assert session.scalars(select(RateLimit.key)).all() == ["c"]


def test_flask_limiter_finds_it_by_its_url(engine: Engine) -> None:
    storage = limits.storage.storage_from_string("database://", engine=engine)  # type: ignore[arg-type]
    assert isinstance(storage, DatabaseStorage)
    assert storage.check()
    assert storage.incr("a", 60) == 1
    assert storage.get_expiry("a") > time.time()


@pytest.mark.parametrize(("wrap", "error"), [(False, OperationalError), (True, StorageError)])
def test_a_failing_database_is_an_error_that_the_limiter_knows(
    engine: Engine, wrap: bool, error: type[Exception]
) -> None:
    hasty = connect(str(engine.url), timeout=0.01)
    storage = DatabaseStorage(wrap_exceptions=wrap, engine=hasty)
    with sessions(engine).begin() as writer:
        writer.add(RateLimit(key="x", hits=1, expires=0))
        writer.flush()
        with pytest.raises(error):
            storage.incr("a", 60)
    hasty.dispose()
    assert issubclass(OperationalError, storage.base_exceptions)
