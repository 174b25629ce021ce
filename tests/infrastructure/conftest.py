"""Real servers. Those that are not installed are named where tests are skipped."""

import secrets
from collections.abc import Iterator

import pytest

from tests.infrastructure.servers import AnyServer, Postgres, RabbitMQ, Redis, find, serve


def serve_or_skip(kind: type[AnyServer]) -> Iterator[AnyServer]:
    for program, package in kind.programs.items():
        if not find(program):
            pytest.skip(f"needs {program}: apt install {package}")
    yield from serve(kind)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The PostgreSQL that tests share; one that stops it asks for `postgres_url` too, which starts it again."""
    yield from serve_or_skip(Postgres)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """The Redis that tests share; one that stops it asks for `redis_url` too, which starts it again."""
    yield from serve_or_skip(Redis)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """The RabbitMQ that tests share; one that stops it asks for `rabbitmq_url` too, which starts it again."""
    yield from serve_or_skip(RabbitMQ)


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL of an empty database, which is dropped after the test."""
    name = f"test_{secrets.token_hex(4)}"
    postgres_server.start()
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url + name
    postgres_server.start()
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of a Redis that has nothing in it."""
    redis_server.start()
    redis_server.clear()
    return f"{redis_server.url}0"


@pytest.fixture
def redis_tls_url(redis_server: Redis, redis_url: str) -> str:
    """The same with TLS; `redis_server.certificate` is the one to trust, for example as SSL_CERT_FILE."""
    return redis_url.replace(redis_server.url, redis_server.tls_url)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> Iterator[str]:
    """The URL of a virtual host without queues, which is deleted after the test."""
    name = f"test-{secrets.token_hex(4)}"
    rabbitmq_server.start()
    rabbitmq_server.add_vhost(name)
    yield rabbitmq_server.url + name
    rabbitmq_server.start()
    rabbitmq_server.delete_vhost(name)


@pytest.fixture
def rabbitmq_tls_url(rabbitmq_server: RabbitMQ, rabbitmq_url: str) -> str:
    """The same with TLS; `rabbitmq_server.certificate` is the one to trust, for example as SSL_CERT_FILE."""
    return rabbitmq_url.replace(rabbitmq_server.url, rabbitmq_server.tls_url)
