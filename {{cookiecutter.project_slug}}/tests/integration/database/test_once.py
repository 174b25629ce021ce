"""Work that is done once although its job runs again."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import IntegrityError

from database import sessions, utc_now
from database.once import REMEMBERED, DoneOnce, forget_old, once
from database.rate_limits import RateLimit


def test_a_key_is_new_once(engine: Engine) -> None:
    for expected in (True, False, False):
        with sessions(engine).begin() as session:
            assert once("welcome 1", session) is expected
    with sessions(engine).begin() as session:
        assert once("welcome 2", session)


def test_a_job_that_fails_gives_its_key_back(engine: Engine) -> None:
    with sessions(engine)() as session:
        assert once("welcome 1", session)
        session.rollback()
    with sessions(engine).begin() as session:
        assert once("welcome 1", session)


def test_of_many_at_the_same_time_one_is_first(engine: Engine) -> None:
    together = threading.Barrier(4)

    def take(_: int) -> bool:
        together.wait()
        with sessions(engine).begin() as session:
            return once("welcome 1", session)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == [False, False, False, True]


def test_old_keys_are_forgotten(engine: Engine) -> None:
    with sessions(engine).begin() as session:
        once("old", session)
        session.execute(update(DoneOnce).values(done=utc_now() - REMEMBERED))
        once("new", session)
    with sessions(engine).begin() as session:
        assert forget_old(session) == 1
        assert [once(key, session) for key in ("old", "new")] == [True, False]


def test_an_error_of_somebody_else_is_not_taken_for_a_known_key(engine: Engine) -> None:
    with sessions(engine)() as session:
        session.add(RateLimit(key="a", hits=None, expires=0))
        with pytest.raises(IntegrityError):
            once("welcome 1", session)
