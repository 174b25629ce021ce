"""Dramatiq's broker on RabbitMQ, behind the outbox."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker as DramatiqRabbitmqBroker
from dramatiq.brokers.rabbitmq import _RabbitmqConsumer
from dramatiq.errors import ConnectionClosed

from database.messages import MessageTable, error_of
from database.outbox import LONGEST_WAIT, REMEMBERED, OutboxBroker
from database.rate_limits import DatabaseStorage

# RabbitMQ counts deliveries, also of messages that waited in a worker's memory when it died. So its own limit is out of
# reach (RabbitMQ 4 would set one of 20), and messages that came back are counted when they start.
DELIVERY_LIMIT = 100_000


class RabbitmqConsumer(_RabbitmqConsumer):
    """Keeps what failed for good in the database."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self.thread = threading.current_thread()

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message."""
        if message := super().__next__():
            message.channel = self.channel
        return message

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """The job is done."""
        # RabbitMQ numbers the messages of each connection from one: this number may be another message's by now.
        if message.channel is not self.channel:
            self.logger.warning("The connection was lost while %s ran; it may run again.", message)
            return
        super().ack(message)
        if threading.current_thread() is not self.thread:
            # Sent by the consumer's thread. Before that, no other job may start: a kill would repeat them both.
            sent = threading.Event()
            try:
                self.connection.add_callback_threadsafe(sent.set)
            except pika.exceptions.AMQPError:
                self.logger.warning("The connection was lost when %s had run; it may run again.", message)
                return
            sent.wait(LONGEST_WAIT)

    def nack(self, message: dramatiq.MessageProxy) -> None:
        """The job has failed for good."""
        self.broker.set_aside(message, error_of(message))
        self.ack(message)


class RabbitmqBroker(OutboxBroker, DramatiqRabbitmqBroker):
    """Messages that may run now wait in RabbitMQ, in quorum queues, which a cluster keeps on several of its nodes.

    Args:
        url: `amqp://` or, with TLS, `amqps://user:password@host:port/vhost`; several, separated by `;`, for a cluster.
        table: where all others wait.
        options: as of `OutboxBroker`.
    """

    consumer_class = RabbitmqConsumer

    def __init__(self, url: str, table: MessageTable, **options: Any) -> None:
        self.returns = DatabaseStorage(engine=table.engine)
        super().__init__(table, url=url, confirm_delivery=True, **options)

    def came_back(self, message: dramatiq.MessageProxy) -> bool:
        """Whether a message was handed out before, which RabbitMQ tells."""
        return bool(message.redelivered or message.options.get("came_back"))

    def count_return(self, message: dramatiq.MessageProxy) -> int:
        """Count that a message came back; returns how often it has."""
        return self.returns.incr(f"returns:{message.message_id}", REMEMBERED)

    def forget_returns(self, message: dramatiq.MessageProxy) -> None:
        """The message has ended."""
        if self.came_back(message):
            self.returns.clear(f"returns:{message.message_id}")

    def join(self, queue_name: str, **options: Any) -> None:  # type: ignore[override]
        """Wait until a queue has no message left to run, here or on the server, which tells of no running ones."""
        super().join(queue_name, **options)

    def check(self) -> None:
        """Raise if the queue cannot be reached."""
        self.table.check()
        pika.BlockingConnection(self.parameters).close()

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        arguments = super()._build_queue_arguments(queue_name)
        return {**arguments, "x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}

    unseen = "RabbitMQ does not show its messages; those that wait are counted and purged, not listed or cancelled."

    def count(self, queue: str) -> tuple[int, int | None]:
        """How many messages wait on the server, which tells nothing of running ones."""
        with connection_errors():
            try:
                return self.channel.queue_declare(queue, passive=True).method.message_count, None
            except pika.exceptions.ChannelClosedByBroker:
                del self.channel
                return 0, None  # There is no such queue before a worker has started.

    def purge(self, queue: str) -> int:
        """Drop all messages that wait on the server, and none that a worker holds; returns how many."""
        with connection_errors():
            try:
                return self.channel.queue_purge(queue).method.message_count
            except pika.exceptions.ChannelClosedByBroker:
                del self.channel
                return 0


@contextmanager
def connection_errors() -> Iterator[None]:
    """A failing server as Dramatiq's error, with the text that Pika's errors lack."""
    try:
        yield
    except (pika.exceptions.AMQPError, OSError) as error:
        raise ConnectionClosed(f"RabbitMQ cannot be reached: {error!r}") from None
