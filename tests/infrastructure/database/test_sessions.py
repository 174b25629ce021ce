"""What sessions promise, on SQLite as on PostgreSQL: reads wait for nobody, and what is locked is not lost."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, column, insert, inspect, select, table, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from config import ROOT
from database import connect, sessions
from database.engine import single_statements

COUNTER = table("counter", column("n"))
PART = table("part", column("n"))
COUNT = select(COUNTER.c.n)
LOCKED = COUNT.with_for_update()
LOCK_ERROR = r"database is locked|lock timeout"

ADD_MANY = """
import sys
from sqlalchemy import column, select, table, update
from database import connect, sessions

url, times, lock = sys.argv[1], int(sys.argv[2]), sys.argv[3]
counter = table("counter", column("n"))
query = select(counter.c.n)
if lock:
    query = query.with_for_update()
engine = connect(url, timeout=60, statement_timeout=60)
for _ in range(times):
    with sessions(engine).begin() as session:
        session.execute(update(counter).values(n=session.scalars(query).one() + 1))
"""


@pytest.fixture
def engine(empty: Engine) -> Engine:
    """A database with a counter that is 0, which others may refer to."""
    with sessions(empty).begin() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER PRIMARY KEY)"))
        session.execute(text("CREATE TABLE part (n INTEGER REFERENCES counter (n))"))
        session.execute(text("INSERT INTO counter VALUES (0)"))
    return empty


def count(engine: Engine) -> int:
    with sessions(engine, read_only=True)() as session:
        return int(session.scalars(COUNT).one())


def set_to(session: Session, n: int) -> None:
    session.execute(update(COUNTER).values(n=n))


def test_a_read_sees_what_was_committed_last_and_waits_for_nobody(engine: Engine) -> None:
    with sessions(engine)() as reader, sessions(engine)() as writer:
        assert reader.scalar(COUNT) == 0
        set_to(writer, 1)
        assert (reader.scalar(COUNT), writer.scalar(COUNT)) == (0, 1)
        writer.commit()
        assert reader.scalar(COUNT) == 1


def test_a_transaction_that_has_read_may_write_whatever_others_have_committed_since(engine: Engine) -> None:
    with sessions(engine)() as first, sessions(engine).begin() as second:
        assert first.scalar(COUNT) == 0
        set_to(second, 5)
        second.commit()
        set_to(first, first.scalars(COUNT).one() + 1)
        first.commit()
    assert count(engine) == 6


def test_an_update_of_what_was_read_without_a_lock_can_be_lost(engine: Engine) -> None:
    with sessions(engine)() as first, sessions(engine)() as second:
        seen = [session.scalars(COUNT).one() for session in (first, second)]
        for session, n in zip((first, second), seen, strict=True):
            set_to(session, n + 1)
            session.commit()
    assert count(engine) == 1


def test_a_row_read_for_update_is_nobody_elses_until_the_transaction_ends(engine: Engine) -> None:
    with sessions(engine)() as first, sessions(engine)() as second:
        set_to(first, first.scalars(LOCKED).one() + 1)
        with pytest.raises(OperationalError, match=LOCK_ERROR):
            second.scalar(LOCKED)
        second.rollback()
        first.commit()
        assert second.scalar(LOCKED) == 1


@pytest.mark.slow
def test_no_update_of_several_processes_is_lost_if_it_locks(engine: Engine, url: str) -> None:
    command = [sys.executable, "-c", ADD_MANY, url, "100", "lock"]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert count(engine) == 400


WRITES = [
    "INSERT INTO counter VALUES (7)",
    "update counter set n = 7",
    "DELETE FROM counter",
    "\n  -- a comment\n  DELETE FROM counter",
    "/* a comment */ DELETE FROM counter",
    "WITH seven AS (SELECT 7) INSERT INTO counter SELECT * FROM seven",
    "CREATE TABLE another (n INTEGER)",
    "ALTER TABLE counter ADD COLUMN m INTEGER",
    "DROP TABLE part",
]


def state(engine: Engine) -> object:
    """All tables, and what the counter's holds."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM counter"))
        return sorted(inspect(engine).get_table_names()), tuple(rows.keys()), set(rows)


@pytest.mark.parametrize("statement", WRITES)
def test_whatever_a_transaction_writes_is_undone_by_a_rollback(engine: Engine, statement: str) -> None:
    before = state(engine)
    with sessions(engine)() as session:
        session.execute(text(statement))
        session.rollback()
        assert state(engine) == before
        session.execute(text(statement))
        session.commit()
    assert state(engine) != before


@pytest.mark.parametrize("statement", WRITES)
def test_a_session_that_reads_says_in_one_line_that_it_cannot_write(engine: Engine, statement: str) -> None:
    before = state(engine)
    with sessions(engine, read_only=True)() as session:
        with pytest.raises(InvalidRequestError) as refusal:
            session.execute(text(statement))
        session.rollback()
        assert session.scalar(COUNT) == 0
    assert re.fullmatch("a GET only reads, .*: .*", str(refusal.value))
    assert state(engine) == before


def test_a_session_that_reads_takes_no_lock(engine: Engine) -> None:
    with sessions(engine, read_only=True)() as session, pytest.raises(InvalidRequestError, match="a GET only reads"):
        session.scalar(LOCKED)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT n FROM counter",
        "  select n from counter",
        "WITH one AS (SELECT n FROM counter) SELECT n FROM one",
        "VALUES (0)",
        "EXPLAIN SELECT n FROM counter",
    ],
)
def test_a_session_that_reads_can_read_in_every_way(engine: Engine, statement: str) -> None:
    with sessions(engine).begin() as writer, sessions(engine, read_only=True)() as session:
        set_to(writer, 1)
        assert session.execute(text(statement)).all()


def test_a_connection_that_was_only_read_from_is_written_through_again(engine: Engine, url: str) -> None:
    alone = connect(url, threads=1)
    for n in (1, 2):
        with sessions(alone, read_only=True)() as session:
            assert session.scalar(COUNT) == n - 1
        with sessions(alone).begin() as session:
            set_to(session, n)
    alone.dispose()


def test_a_savepoint_that_is_undone_leaves_the_rest_of_its_transaction(engine: Engine) -> None:
    with sessions(engine).begin() as session, sessions(engine)() as other:
        with contextlib.suppress(KeyError), session.begin_nested():
            set_to(session, 1)
            raise KeyError
        session.execute(insert(COUNTER).values(n=2))
        assert other.scalars(COUNT).all() == [0]
    with sessions(engine)() as session:
        assert session.scalars(COUNT).all() == [0, 2]


def test_an_exception_rolls_back(engine: Engine) -> None:
    with contextlib.suppress(KeyError), sessions(engine).begin() as session:
        set_to(session, 1)
        raise KeyError
    assert count(engine) == 0


def test_rows_can_be_streamed_beside_writes_of_the_same_transaction(engine: Engine) -> None:
    with sessions(engine).begin() as session:
        session.execute(insert(COUNTER), [{"n": n} for n in range(1, 100)])
    with sessions(engine).begin() as session:
        for n in session.scalars(COUNT, execution_options={"yield_per": 10}):
            session.execute(insert(PART).values(n=n))
    with sessions(engine)() as session:
        assert set(session.scalars(select(PART.c.n))) == set(range(100))


def test_a_reference_to_nothing_is_refused(engine: Engine) -> None:
    with sessions(engine)() as session, pytest.raises(IntegrityError):
        session.execute(text("INSERT INTO part VALUES (7)"))


def test_single_statements_are_kept_one_by_one(engine: Engine) -> None:
    direct = single_statements(engine)
    with direct.connect() as connection:
        connection.execute(update(COUNTER).values(n=1))
        assert count(engine) == 1
        with sessions(engine)() as writer:
            set_to(writer, 2)
            with pytest.raises(OperationalError, match=LOCK_ERROR):
                connection.execute(update(COUNTER).values(n=3))
        connection.rollback()
    direct.dispose()
    assert count(engine) == 1


def test_only_single_statements_do_not_wait_for_the_disk(engine: Engine, url: str) -> None:
    direct = single_statements(engine)
    question = "PRAGMA synchronous" if url.startswith("sqlite") else "SHOW synchronous_commit"
    for kind, expected in ((direct, "off"), (engine, "on")):
        with kind.connect() as connection:
            assert connection.scalar(text(question)) == (1 if url.startswith("sqlite") else expected)
    direct.dispose()


def test_autocommit_is_for_what_no_transaction_may_hold(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM"))
    with sessions(engine)() as session:
        set_to(session, 1)
        session.rollback()
    direct = single_statements(engine)
    with direct.connect() as connection:
        connection.execute(update(COUNTER).values(n=2))
    direct.dispose()
    assert count(engine) == 2


def test_each_thread_can_hold_two_connections(url: str) -> None:
    engine = connect(url, threads=3, timeout=0.1)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(engine.connect()).execute(select(1))
        with pytest.raises(PoolTimeout):
            engine.connect()
    engine.dispose()


def test_loaded_objects_can_be_read_after_the_commit(engine: Engine) -> None:
    assert sessions(engine)().expire_on_commit is False


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path}/alone.sqlite3", timeout=0.05)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER PRIMARY KEY)"))
        connection.execute(insert(COUNTER), [{"n": n} for n in range(100)])
    yield engine
    engine.dispose()


def test_sqlite_refuses_to_write_beside_rows_that_are_too_old(sqlite: Engine) -> None:
    with sessions(sqlite)() as session, sessions(sqlite).begin() as other:
        rows = session.scalars(COUNT, execution_options={"yield_per": 10})
        next(rows)
        other.execute(insert(COUNTER).values(n=-1))
        other.commit()
        with pytest.raises(OperationalError, match="database is locked"):
            session.execute(insert(COUNTER).values(n=-2))
        rows.close()
        session.execute(insert(COUNTER).values(n=-2))
        session.commit()


def test_sqlite_gives_a_log_back_that_has_grown_beside_a_reader(sqlite: Engine, tmp_path: Path) -> None:
    log = tmp_path / "alone.sqlite3-wal"

    def write() -> None:
        with sqlite.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS large (b BLOB)"))
            connection.execute(text("INSERT INTO large VALUES (randomblob(4000000))"))

    with sqlite.connect() as reader:
        rows = reader.execution_options(stream_results=True).execute(COUNT)
        rows.fetchone()
        for _ in range(6):
            write()
        assert log.stat().st_size > 20_000_000
        rows.close()
    for _ in range(2):
        write()
    assert log.stat().st_size <= 16 * 1024 * 1024
