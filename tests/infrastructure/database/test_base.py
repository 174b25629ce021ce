"""What every model builds on."""

import enum
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    create_mock_engine,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from database import Base, PrimaryKey, sessions, utc_now
from database.base import UtcDateTime, database_time, insert_new

# Not in the metadata of the models, which migrations are compared with.
metadata = MetaData(naming_convention=Base.metadata.naming_convention)
moments = Table("moment", metadata, Column("at", UtcDateTime))


def test_a_time_comes_back_as_the_same_moment_in_utc(engine: Engine) -> None:
    moments.create(engine)
    written = [
        datetime(2026, 7, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datetime(2026, 7, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        None,
    ]
    with sessions(engine).begin() as session:
        session.execute(insert(moments), [{"at": moment} for moment in written])
    with sessions(engine)() as session:
        stored = session.scalars(select(moments.c.at)).all()
    assert stored == written
    assert {moment.tzinfo for moment in stored if moment} == {UTC}


def test_a_time_without_a_zone_is_refused(engine: Engine) -> None:
    moments.create(engine)
    naive = datetime(2026, 7, 1)  # noqa: DTZ001
    with sessions(engine)() as session, pytest.raises(StatementError, match="has no time zone"):
        session.execute(insert(moments).values(at=naive))


def test_a_time_keeps_its_zone_where_the_database_has_room_for_it() -> None:
    dialect = create_mock_engine("postgresql+psycopg://", lambda *_: None).dialect
    moment = datetime(2026, 7, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert UtcDateTime().process_bind_param(moment, dialect) == moment
    back = UtcDateTime().process_result_value(moment, dialect)
    assert (back, back and back.tzinfo) == (moment, UTC)


def test_now_is_aware_and_in_utc() -> None:
    assert utc_now().tzinfo is UTC
    assert abs(utc_now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_constraints_are_named_by_rule(engine: Engine) -> None:
    parent = Table("parent", metadata, Column("id", Integer, primary_key=True))
    child = Table(
        "child",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("parent_id", ForeignKey(parent.c.id), index=True),
        Column("a", Integer),
        Column("b", Integer),
        UniqueConstraint("a", "b"),
        CheckConstraint("a > b", name="order"),
    )
    metadata.create_all(engine, [parent, child])
    tables = inspect(engine)
    assert tables.get_pk_constraint("child")["name"] == "pk_child"
    assert tables.get_foreign_keys("child")[0]["name"] == "fk_child_parent_id_parent"
    assert tables.get_indexes("child")[0]["name"] == "ix_child_parent_id"
    assert tables.get_unique_constraints("child")[0]["name"] == "uq_child_a_b"
    assert tables.get_check_constraints("child")[0]["name"] == "ck_child_order"


def test_the_database_numbers_the_rows_of_a_model(engine: Engine) -> None:
    class Apart(DeclarativeBase):
        """Models that no migration knows."""

    class Numbered(Apart):
        __tablename__ = "numbered"
        id: Mapped[PrimaryKey]

    Numbered.metadata.create_all(engine)
    with sessions(engine).begin() as session:
        session.add_all([Numbered(), Numbered()])
    with sessions(engine)() as session:
        assert session.scalars(select(Numbered.id)).all() == [1, 2]


class State(enum.Enum):
    NEW = "new"
    SENT = "sent"


def test_an_enum_is_stored_as_text(empty: Engine) -> None:
    class Apart(DeclarativeBase):
        """Models that no migration knows."""

    class Parcel(Apart):
        __tablename__ = "parcel"
        id: Mapped[PrimaryKey]
        state: Mapped[State]

    Parcel.metadata.create_all(empty)
    with sessions(empty).begin() as session:
        session.add_all([Parcel(state=State.NEW), Parcel(state=State.SENT)])
    with sessions(empty)() as session:
        assert session.scalars(select(Parcel.state).where(Parcel.state == State.SENT)).all() == [State.SENT]
        assert session.scalars(text("SELECT state FROM parcel ORDER BY id")).all() == ["NEW", "SENT"]
    Parcel.metadata.drop_all(empty)
    Parcel.metadata.create_all(empty)


def test_a_row_is_stored_unless_its_key_is_taken(empty: Engine) -> None:
    class Apart(DeclarativeBase):
        """Models that no migration knows."""

    class Once(Apart):
        __tablename__ = "once"
        key: Mapped[str] = mapped_column(primary_key=True)
        value: Mapped[int]

    Once.metadata.create_all(empty)
    with sessions(empty).begin() as session:
        assert insert_new(session, Once, key="a", value=1)
        assert not insert_new(session, Once, key="a", value=2)
        assert insert_new(session, Once, key="b", value=3)
    with sessions(empty)() as session:
        assert session.scalars(select(Once.value).order_by(Once.key)).all() == [1, 3]


def test_the_database_has_a_clock(empty: Engine) -> None:
    with sessions(empty)() as session:
        assert session.scalar(select(database_time())) == pytest.approx(time.time(), abs=60)
