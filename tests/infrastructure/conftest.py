"""Real servers, which tests are skipped without, and the project where every user can read it."""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from config import ROOT, feature_names
from tests.infrastructure.servers import AnyServer, Postgres, RabbitMQ, Redis, find, serve

# What has no meaning without the example.
needs_blog = pytest.mark.skipif("blog" not in feature_names(), reason="needs app/blog")

# A shell that has started the tests in the background lets all that they start ignore Ctrl-C, which some wait for.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Two processes for each processor: most tests wait for a server, a lock or another process."""
    return 2 * (os.cpu_count() or 1)


class Scheduling(LoadScopeScheduling):
    """Gives tests of a server that starts slowly to one process, and deals out the others one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name in ("rabbitmq", "/browser/") if name in nodeid), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """How tests are distributed."""
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def open_project() -> Iterator[Path]:
    """The project's code where every user of the machine can read it; pytest's folders are for nobody else."""
    with tempfile.TemporaryDirectory(prefix="test-project-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        for folder in ("app", "backup", "config", "database", "storage"):
            shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("main.py", "pyproject.toml", "requirements.txt"):
            shutil.copy(ROOT / file, place)
        yield place


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
