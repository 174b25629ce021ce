"""Databases to restore into."""

from collections.abc import Iterator

import pytest

from tests.infrastructure.servers import Postgres


@pytest.fixture
def empty_database(postgres_server: Postgres, postgres_url: str) -> Iterator[str]:
    """The URL of a database on the tests' PostgreSQL in which nothing is."""
    name = "put_back_" + postgres_url.rpartition("_")[2]
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url + name
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
