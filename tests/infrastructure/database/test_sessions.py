"""What SQLite is set up for: references, readers beside a writer, and no lost update."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from database import connect, sessions

COUNT = text("SELECT n FROM counter")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database with a counter that is 0, in which nobody waits long for a lock."""
    engine = connect(f"sqlite:///{tmp_path}/sessions.sqlite3", timeout=0.05)
    with sessions(engine).begin() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER PRIMARY KEY)"))
        session.execute(text("CREATE TABLE part (n INTEGER REFERENCES counter (n))"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    yield engine
    engine.dispose()


def add_one(session: Session) -> None:
    seen = session.scalar(COUNT)
    session.execute(text("UPDATE counter SET n = :n"), {"n": seen + 1})


def test_a_reference_to_nothing_is_refused(engine: Engine) -> None:
    with sessions(engine)() as session, pytest.raises(IntegrityError):
        session.execute(text("INSERT INTO part VALUES (7)"))


def test_the_journal_is_a_write_ahead_log(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_concurrent_updates_of_what_was_read_are_not_lost(engine: Engine) -> None:
    patient = connect(str(engine.url))
    together = threading.Barrier(4)

    def work(_: int) -> None:
        together.wait()
        for _ in range(25):
            with sessions(patient).begin() as session:
                add_one(session)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    patient.dispose()
    with sessions(engine)() as session:
        assert session.scalar(COUNT) == 100


def test_a_read_only_session_cannot_write(engine: Engine) -> None:
    with sessions(engine, read_only=True)() as session, pytest.raises(OperationalError, match="readonly"):
        add_one(session)
    with sessions(engine)() as session:
        assert session.scalar(COUNT) == 0


def test_a_connection_that_was_read_only_writes_again(tmp_path: Path, engine: Engine) -> None:
    alone = connect(str(engine.url), pool_size=1, pool_overflow=0)
    for _ in range(2):
        with sessions(alone, read_only=True)() as session:
            session.scalar(COUNT)
        with sessions(alone).begin() as session:
            add_one(session)
    alone.dispose()
    with sessions(engine)() as session:
        assert session.scalar(COUNT) == 2


def test_readers_work_beside_an_open_writer_and_see_what_was_committed(engine: Engine) -> None:
    reading = sessions(engine, read_only=True)
    with reading() as early, sessions(engine).begin() as writer:
        assert early.scalar(COUNT) == 0
        add_one(writer)
        with reading() as session:
            assert session.scalar(COUNT) == 0
        writer.commit()
        assert early.scalar(COUNT) == 0
        with reading() as session:
            assert session.scalar(COUNT) == 1


def test_a_second_writer_gives_up_after_the_timeout_with_an_error_of_sqlalchemy(engine: Engine) -> None:
    with sessions(engine).begin() as writer:
        add_one(writer)
        with sessions(engine)() as second, pytest.raises(OperationalError, match="database is locked"):
            second.scalar(COUNT)
    with sessions(engine)() as session:
        assert session.scalar(COUNT) == 1


def test_an_exception_rolls_back(engine: Engine) -> None:
    with contextlib.suppress(KeyError), sessions(engine).begin() as session:
        add_one(session)
        raise KeyError
    with sessions(engine)() as session:
        assert session.scalar(COUNT) == 0


def test_loaded_objects_can_be_read_after_the_commit(engine: Engine) -> None:
    assert sessions(engine)().expire_on_commit is False
