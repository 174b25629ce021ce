"""The servers of the tests keep their data when they are stopped, and take passwords and TLS."""

import dramatiq
import psycopg
import pytest
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.infrastructure.servers import Postgres, RabbitMQ, Redis

pytestmark = pytest.mark.slow


def test_postgresql_comes_back_with_its_data(postgres_server: Postgres, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgres_server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url)
    postgres_server.start()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_redis_comes_back_with_its_data(redis_server: Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("kept", "1")
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.start()
        assert client.get("kept") == b"1"


def test_redis_is_spoken_to_with_tls(redis_server: Redis, redis_tls_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis.Redis.from_url(redis_tls_url) as client, pytest.raises(redis.ConnectionError, match="self-signed"):
        client.ping()
    monkeypatch.setenv("SSL_CERT_FILE", str(redis_server.certificate))
    with redis.Redis.from_url(redis_tls_url) as client:
        assert client.ping()


def test_rabbitmq_comes_back_with_its_data_and_is_spoken_to_with_tls(
    rabbitmq_server: RabbitMQ, rabbitmq_url: str, rabbitmq_tls_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(rabbitmq_server.certificate))
    for url in (rabbitmq_url, rabbitmq_tls_url):
        broker = RabbitmqBroker(url=url)
        broker.declare_queue("kept", ensure=True)
        broker.enqueue(dramatiq.Message("kept", "job", (), {}, {}))
        broker.close()
    rabbitmq_server.stop()
    rabbitmq_server.start()
    broker = RabbitmqBroker(url=rabbitmq_url)
    assert broker.get_queue_message_counts("kept") == (2, 0, 0)
    broker.close()
