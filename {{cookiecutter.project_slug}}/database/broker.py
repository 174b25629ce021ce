"""A Dramatiq broker whose queue is a table of the service's own database."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.errors import BrokerConnectionError, QueueJoinTimeout
from dramatiq.middleware import SkipMessage
from sqlalchemy import Engine

from database.engine import closed_on_error
from database.messages import CHANNEL, ClaimedMessage, MessageTable, connection_errors, error_of

SHORTEST_PAUSE = 0.01
# A message that came back while another such one runs is tried again after so many milliseconds.
PUT_OFF = 1000

logger = logging.getLogger(__name__)


class TableBroker(dramatiq.Broker):
    """What brokers have in common whose messages are stored in `queue_message` first.

    Args:
        table: the table, as this process sees it.
        poll_interval: longest pause, in seconds, between two looks at an empty queue on SQLite.
        options: as for every Dramatiq broker.
    """

    def __init__(self, table: MessageTable, *, poll_interval: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        self.table = table
        self.heartbeat = Heartbeat(table)
        self.poll_interval = poll_interval
        self.add_middleware(PoisonGuard(self))
        # The first of all: to wait there takes nothing of a job's time limit, whose end would else leave it locked.
        self.middleware.insert(0, self.middleware.pop())

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Store a message, due in `delay` milliseconds, with the current session's transaction if there is one.

        A claimed message that is sent again, which is what a retry is, waits in the row that it has; its `ack` says so
        in the database, in one step, so that no moment exists in which it could be lost.
        """
        self.emit_before("enqueue", message, delay)
        if isinstance(message, ClaimedMessage):
            message.again_after = delay or 0
        else:
            actor = self.actors.get(message.actor_name)
            self.table.store(message, delay, priority=actor.priority if actor else 0)
        self.emit_after("enqueue", message, delay)
        return message

    def came_back(self, message: Any) -> bool:
        """Whether a message was handed out before."""
        raise NotImplementedError

    def count_return(self, message: Any) -> int:
        """Count that a message came back; returns how often it has."""
        raise NotImplementedError

    def forget_returns(self, message: Any) -> None:
        """The message has ended."""

    def put_off(self, message: Any) -> None:
        """Store a message again, to come back a little later."""
        message.put_off = True
        self.table.store(message.copy(options={"came_back": True}), PUT_OFF)

    def check(self) -> None:
        """Raise if the queue cannot be reached."""
        self.table.check()

    def close(self) -> None:
        """Stop renewing, and let others have what was not finished in the time that it was given."""
        self.heartbeat.stop()
        self.table.close()
        super().close()


class DatabaseBroker(TableBroker):
    """Workers take messages from the table itself, on SQLite and PostgreSQL alike."""

    def __init__(self, table: MessageTable, **options: Any) -> None:
        super().__init__(table, **options)
        self.queues: set[str] = set()

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known to workers; the table needs no preparation."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """All queues declared so far."""
        return set(self.queues)

    def came_back(self, message: ClaimedMessage) -> bool:
        """Whether a message was handed out before."""
        return message.deliveries > 1

    def count_return(self, message: ClaimedMessage) -> int:
        """How often a message came back, which its claim has counted."""
        return message.deliveries - 1

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> "DatabaseConsumer":
        """Iterate over a queue's messages, holding at most `prefetch` of them."""
        self.heartbeat.start()
        return DatabaseConsumer(self, queue_name, prefetch, timeout)

    def flush(self, queue_name: str) -> None:
        """Drop a queue's messages."""
        self.table.flush(queue_name)

    def flush_all(self) -> None:
        """Drop the messages of all queues."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until a queue has no message left to run.

        Raises:
            QueueJoinTimeout: after `timeout` milliseconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while self.table.count(queue_name):
            if deadline is not None and time.monotonic() > deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(SHORTEST_PAUSE)


class PoisonGuard(dramatiq.Middleware):
    """Sets a message aside that comes back again and again from workers that died: it takes them down.

    A process runs one at a time of the messages that came back, so that no other is taken for the guilty one.
    """

    def __init__(self, broker: TableBroker) -> None:
        self.broker = broker
        self.one_at_a_time = threading.Lock()
        self.running: int | None = None

    def before_process_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """Count how often a message came back; refuse to run it once more after too many times."""
        if not self.broker.came_back(message):
            return
        # Who had to wait here would hold up others that did not come back.
        if not self.one_at_a_time.acquire(blocking=False):
            self.broker.put_off(message)
            raise SkipMessage("it came back, and waits until another such message has ended")
        self.running = threading.get_ident()
        if self.broker.count_return(message) >= self.broker.table.max_deliveries:
            self._give_up(message)

    def _give_up(self, message: dramatiq.MessageProxy) -> None:
        reason = SkipMessage(f"handed out {self.broker.table.max_deliveries} times, and its worker died each time")
        # First of all: should telling fail, Dramatiq logs why, and goes on with a message that has failed and why.
        message.fail()
        message.stuff_exception(reason)
        options = {**self.broker.get_actor(message.actor_name).options, **message.options}
        if told := options.get("on_retry_exhausted"):
            retries = {"retries": message.options.get("retries", 0), "max_retries": options.get("max_retries")}
            self.broker.get_actor(told).send(message.asdict(), retries)
        raise reason

    def after_process_message(
        self,
        _broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Forget the count of one that has ended, well or not."""
        self.after_skip_message(_broker, message)

    def after_skip_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """As well for one that was not run."""
        if self.running == threading.get_ident():
            self.running = None
            self.one_at_a_time.release()
        if not getattr(message, "put_off", False):
            self.broker.forget_returns(message)


class DatabaseConsumer(dramatiq.Consumer):
    """Claims messages of one queue."""

    def __init__(self, broker: DatabaseBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.table = broker.table
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout / 1000
        self.claimed: deque[ClaimedMessage] = deque()
        self.running: set[int] = set()
        self.room = threading.Event()
        self.arrivals = Arrivals(self.table.engine, broker.poll_interval)

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message, or None after a while without one."""
        if not self.claimed:
            # Claimed by the half dozen, messages cost far less than one by one.
            self.room.clear()
            if not self._has_room():
                self.room.wait(self.timeout)
                return None
            messages, due = self.table.claim(self.queue_name, self.prefetch - len(self.running))
            self.claimed.extend(messages)
            if not messages:
                self.arrivals.wait(self.timeout if due is None else min(self.timeout, max(0, due)))
                return None
        self.arrivals.expect()
        message = self.claimed.popleft()
        self.running.add(message.row_id)
        return message

    def ack(self, message: ClaimedMessage) -> None:  # type: ignore[override]
        """The job is done, and its row goes; or it has to run again, and its row waits."""
        if message.again_after is None:
            lost = self.table.finish(message)
        else:
            lost = 1 - self.table.run_again(message, message.again_after)
        self._let_go(message, lost)

    def nack(self, message: ClaimedMessage) -> None:  # type: ignore[override]
        """The job has failed for good: its row stays, set aside."""
        self._let_go(message, 1 - self.table.set_aside(message, error_of(message)))

    def requeue(self, messages: Iterable[dramatiq.MessageProxy]) -> None:
        """Give messages back that were claimed and not started."""
        given_back = {message.row_id for message in messages}
        self.table.give_back(given_back)
        self.running -= given_back

    def close(self) -> None:
        """Give back what was not handed out."""
        self.arrivals.close()
        self.requeue(self.claimed)

    def _has_room(self) -> bool:
        return len(self.running) <= self.prefetch // 2

    def _let_go(self, message: ClaimedMessage, lost: int) -> None:
        self.running.discard(message.row_id)
        if self._has_room():
            self.room.set()
        if lost:
            self.broker.logger.warning("%d jobs have run whose leases had ended; they may run again.", lost)


class Arrivals:
    """Waits for new messages: PostgreSQL tells of them, SQLite is asked, less and less often while nothing comes."""

    def __init__(self, engine: Engine, poll_interval: float) -> None:
        self.longest_pause = poll_interval
        self.pause = SHORTEST_PAUSE
        self.errors = engine.dialect.loaded_dbapi.Error
        self.listener: Any = None
        if engine.dialect.name == "postgresql":
            with connection_errors(self.errors):
                connection = engine.raw_connection()
                self.listener = connection.driver_connection
                connection.detach()
                with closed_on_error(self.listener):
                    self.listener.autocommit = True
                    self.listener.execute(f"LISTEN {CHANNEL}")

    def __enter__(self) -> "Arrivals":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expect(self) -> None:
        """Where one message was, others may follow soon."""
        self.pause = SHORTEST_PAUSE

    def wait(self, seconds: float) -> None:
        """Wait for at most so long."""
        if self.listener is None:
            time.sleep(min(seconds, self.pause))
            self.pause = min(self.pause * 1.5, self.longest_pause)
            return
        with connection_errors(self.errors):
            for _ in self.listener.notifies(timeout=seconds, stop_after=1):
                pass

    def close(self) -> None:
        """End the connection."""
        if self.listener is not None:
            self.listener.close()


class Heartbeat:
    """Renews the claims of this process from a thread of its own, for as long as it lives."""

    def __init__(self, table: MessageTable) -> None:
        self.table = table
        self.stopped = threading.Event()
        self.starting = threading.Lock()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self.starting:
            if self.thread is None:
                self.thread = threading.Thread(target=self._beat, name="lease", daemon=True)
                self.thread.start()

    def stop(self) -> None:
        """End the thread."""
        self.stopped.set()
        if self.thread is not None:
            self.thread.join()

    def _beat(self) -> None:
        while not self.stopped.wait(self.table.lease / 3):
            try:
                self.table.renew()
            except Exception as error:
                known = isinstance(error, BrokerConnectionError)
                logger.error("Leases were not renewed, trying again: %s", error, exc_info=not known)
