"""What Redis and RabbitMQ need around them to promise what the broker in the database promises.

A message is stored in the database first, with the transaction that sends it; workers pass on what is due. Delays, and
messages that were set aside, stay in the database. So only messages that may run now are in Redis or RabbitMQ, a
server that is down keeps nobody from sending, and a crash at any moment loses nothing.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import dramatiq
from dramatiq.common import q_name
from dramatiq.errors import BrokerConnectionError, QueueJoinTimeout

from database.broker import SHORTEST_PAUSE, Arrivals, TableBroker
from database.messages import ClaimedMessage, MessageTable

BATCH = 100
LONGEST_WAIT = 1.0
LONGEST_RETRY_PAUSE = 10.0
# How often a message came back is forgotten after a week, in seconds.
REMEMBERED = 7 * 86400

logger = logging.getLogger(__name__)


class ServerMessage(NamedTuple):
    """A message that a server has, and the worker that holds it, until then unless it goes on living."""

    payload: bytes
    worker: str | None = None
    until: float | None = None


class OutboxBroker(TableBroker):
    """The part of a broker that is the same in front of every server. A base class before Dramatiq's own broker."""

    def __init__(self, table: MessageTable, **options: Any) -> None:
        super().__init__(table, **options)
        self.relays: dict[str, threading.Thread] = {}
        self.starting = threading.Lock()
        self.closed = threading.Event()

    def pass_on(self, messages: list[ClaimedMessage]) -> None:
        """Hand messages to the server, delete them here, and take them out of the list.

        One by one: if this ends between the two, no more than one of them is handed over again.
        """
        while messages:
            super(TableBroker, self).enqueue(messages[0]._message)
            self.table.finish(messages[0])
            del messages[0]

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        """Iterate over the server's messages, and pass on what is stored."""
        name = q_name(queue_name)
        # Dramatiq consumes a queue, and its queue of delayed messages, from a thread each.
        with self.starting:
            if name not in self.relays:
                self.heartbeat.start()
                relay = threading.Thread(target=self._relay, args=(name,), name=f"outbox-{name}", daemon=True)
                self.relays[name] = relay
                relay.start()
        return super().consume(queue_name, prefetch, timeout)

    def set_aside(self, message: dramatiq.MessageProxy, error: str | None) -> None:
        """Keep a message that failed for good in the database, where it can be looked at and tried again.

        Once: this is tried again until the server, too, knows that the message has ended.
        """
        if not getattr(message, "set_aside", False):
            self.table.store_dead(message, error)
            message.set_aside = True  # type: ignore[attr-defined]

    def flush(self, queue_name: str) -> None:
        """Drop a queue's messages, here and on the server."""
        self.table.flush(queue_name)
        super().flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None, **options: Any) -> None:
        """Wait until a queue has no message left to run, here or on the server.

        Raises:
            QueueJoinTimeout: after `timeout` milliseconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            # What is passed on leaves the table last, and what has to run again is stored before the server forgets it.
            if not self.table.count(queue_name):
                super().join(queue_name, timeout=timeout, **options)
                if not self.table.count(queue_name):
                    return
            if deadline is not None and time.monotonic() > deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(SHORTEST_PAUSE)

    def close(self) -> None:
        """Stop passing on, and let others do it."""
        self.closed.set()
        for relay in self.relays.values():
            relay.join()
        super().close()

    def _relay(self, queue: str) -> None:
        failures = 0
        while not self.closed.is_set():
            try:
                with Arrivals(self.table.engine, self.poll_interval) as arrivals:
                    while not self.closed.is_set():
                        self._pass_on(queue, arrivals)
                        failures = 0
            except Exception as error:
                failures += 1
                pause = min(2.0 ** min(failures, 5), LONGEST_RETRY_PAUSE)
                known = isinstance(error, BrokerConnectionError)
                logger.error(
                    "Queue %s: jobs wait in the database, next try in %.0f s: %s",
                    queue,
                    pause,
                    error,
                    exc_info=not known,
                )
                self.closed.wait(pause)

    def _pass_on(self, queue: str, arrivals: Arrivals) -> None:
        messages, due = self.table.claim(queue, BATCH)
        if not messages:
            # What was passed on, when the database could not be told.
            self.table.finish()
            arrivals.wait(LONGEST_WAIT if due is None else min(due, LONGEST_WAIT))
            return
        arrivals.expect()
        try:
            self.pass_on(messages)
        finally:
            self.table.give_back(message.row_id for message in messages)

    # What the server does not show of its messages, in a line for people.
    unseen = ""

    def count(self, queue: str) -> tuple[int, int | None]:
        """How many messages wait on the server, and how many workers hold; None where it does not tell."""
        raise NotImplementedError

    def look(self, queue: str, limit: int | None = None) -> Iterator[ServerMessage]:
        """The messages on the server, of waiting ones the first so many; none where it does not show them."""
        return iter(())

    def remove(self, queue: str, ids: Collection[str]) -> int:
        """Drop waiting messages by the ids that the server has for them; returns how many still waited."""
        raise NotImplementedError

    def purge(self, queue: str) -> int:
        """Drop all messages that wait on the server, and none that a worker holds; returns how many."""
        raise NotImplementedError
