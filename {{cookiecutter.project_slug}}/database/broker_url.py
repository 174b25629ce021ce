"""The broker that a URL stands for."""

from database.broker import DatabaseBroker, TableBroker
from database.messages import MessageTable

EXPECTED = "expected nothing, database:, redis://host:port/0 or amqp://user:password@host:port/"
SCHEMES = {"redis": "redis", "rediss": "redis", "unix": "redis", "amqp": "rabbitmq", "amqps": "rabbitmq"}


def open_broker(url: str, table: MessageTable, *, poll_interval: float) -> TableBroker:
    """The broker of a URL. No connection is opened yet.

    Args:
        url: empty or `database:`, `redis://…` or `amqp://…`.
        table: where messages wait.
        poll_interval: longest pause, in seconds, between two looks at an empty table on SQLite.

    Raises:
        ValueError: it is no such URL, or its library is not installed.
    """
    if url in ("", "database:"):
        return DatabaseBroker(table, poll_interval=poll_interval)
    extra = SCHEMES.get(url.partition("://")[0])
    try:
        if extra == "redis":
            from database.redis_broker import RedisBroker

            return RedisBroker(url, table, poll_interval=poll_interval)
        if extra == "rabbitmq":
            from database.rabbitmq_broker import RabbitmqBroker

            return RabbitmqBroker(url, table, poll_interval=poll_interval)
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed; run `make lock EXTRAS={extra} && make setup`") from None
    except ValueError:
        # Without what the library says, which may hold parts of a password.
        raise ValueError(EXPECTED) from None
    raise ValueError(EXPECTED)
