"""Both databases, each as an empty one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine

from database import connect
from database.migrations import alembic_config, scripts

# What a database is at that has all shipped revisions, and the first one of the infrastructure.
HEADS = set(scripts().get_heads(consider_depends_on=True))
FIRST = "0001_infrastructure"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; a test that asks for it runs on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.sqlite3"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def empty(url: str) -> Iterator[Engine]:
    """An empty database, in which no lock is waited for long."""
    engine = connect(url, timeout=0.2)
    yield engine
    engine.dispose()


def upgrade(engine: Engine, revision: str = "heads") -> None:
    command.upgrade(alembic_config(engine), revision)


def downgrade(engine: Engine, revision: str) -> None:
    command.downgrade(alembic_config(engine), revision)
