"""Dramatiq's broker on Redis, behind the outbox."""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker as DramatiqRedisBroker
from dramatiq.brokers.redis import _RedisConsumer
from dramatiq.errors import ConnectionClosed, DecodeError

from database.messages import ClaimedMessage, MessageTable, error_of
from database.outbox import REMEMBERED, OutboxBroker, ServerMessage

# Of a million commands, so many look for messages of workers that have died. Dramatiq's default of 1,000 brings such
# a message back after minutes.
MAINTENANCE_CHANCE = 100_000
# So many messages are read or removed in one command.
AT_ONCE = 500
# Takes messages from those who wait, and from workers that have died with them.
REMOVE = """
local dead = redis.call("zrangebyscore", KEYS[3], 0, ARGV[2])
local removed = 0
for i = 3, #ARGV do
  local found = redis.call("lrem", KEYS[1], 1, ARGV[i])
  for _, worker in ipairs(dead) do
    found = found + redis.call("srem", KEYS[4] .. worker .. "." .. ARGV[1], ARGV[i])
  end
  if found > 0 then
    redis.call("hdel", KEYS[2], ARGV[i])
    removed = removed + 1
  end
end
return removed
"""


PUSH_ONCE = """
if redis.call("set", KEYS[1], "", "NX", "EX", ARGV[1]) then
    redis.call("hset", KEYS[3], ARGV[2], ARGV[3])
    redis.call("rpush", KEYS[2], ARGV[2])
end
"""


class RedisConsumer(_RedisConsumer):
    """Takes every failure of the server for one that passes."""

    def __init__(self, broker: "RedisBroker", *options: Any) -> None:
        super().__init__(broker, *options)
        # Messages that the server has handed out, but whose way here was cut off, would wait as long as this process
        # lives.
        with connection_errors():
            key = f"{broker.namespace}:__acks__.{broker.broker_id}.{self.queue_name}"
            claimed = cast("set[bytes]", broker.client.smembers(key))
            if stranded := {message_id.decode() for message_id in claimed} - broker.handed_out:
                broker.do_requeue(self.queue_name, *stranded)

    def __next__(self) -> dramatiq.MessageProxy | None:
        """The next message."""
        try:
            with connection_errors():
                message = super().__next__()
        except DecodeError as error:
            self.logger.error("A message that cannot be read was left on queue %s: %s", self.queue_name, error.error)
            return None
        if message:
            self.broker.handed_out.add(message.options["redis_message_id"])
        return message

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """The job is done."""
        with connection_errors():
            super().ack(message)
        self.broker.handed_out.discard(message.options["redis_message_id"])

    def nack(self, message: dramatiq.MessageProxy) -> None:
        """The job has failed for good."""
        self.broker.set_aside(message, error_of(message))
        self.ack(message)

    def requeue(self, messages: Iterable[dramatiq.MessageProxy]) -> None:
        """Give messages back that were not started."""
        messages = list(messages)
        with connection_errors():
            super().requeue(messages)
        self.broker.handed_out.difference_update(message.options["redis_message_id"] for message in messages)


class RedisBroker(OutboxBroker, DramatiqRedisBroker):
    """Messages that may run now wait in Redis.

    Args:
        url: `redis://` or, with TLS, `rediss://user:password@host:port/db`.
        table: where all others wait.
        options: as of `OutboxBroker`.
    """

    consumer_class = RedisConsumer

    def __init__(self, url: str, table: MessageTable, **options: Any) -> None:
        client = redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=15, health_check_interval=30)
        self.push_once = client.register_script(PUSH_ONCE)
        self.handed_out: set[str] = set()
        super().__init__(
            table,
            client=client,
            heartbeat_timeout=round(table.lease * 1000),
            maintenance_chance=MAINTENANCE_CHANCE,
            **options,
        )

    def pass_on(self, messages: list[ClaimedMessage]) -> None:
        """Hand messages to Redis, each once, also if this ends before they are deleted in the database."""
        marks = []
        with connection_errors(), self.client.pipeline(transaction=False) as pipe:
            for message in messages:
                number, queue = f"{message.message_id}:{message.row_id}", self._key(message.queue_name)
                marks.append(self._key(f"passed:{number}"))
                body = message.copy(options={"redis_message_id": number}).encode()
                self.push_once([marks[-1], queue, f"{queue}.msgs"], [REMEMBERED, number, body], client=pipe)
            pipe.execute()
            self.table.finish(*messages)
            messages.clear()
            self.client.delete(*marks)

    def came_back(self, message: dramatiq.MessageProxy) -> bool:
        """Whether a message was handed out before, which Redis does not tell by itself."""
        try:
            return not self.client.set(self._returns(message), 0, nx=True, ex=REMEMBERED)
        except redis.RedisError as error:
            self.logger.warning("Nobody knows whether message %s came back, so it runs: %s", message.message_id, error)
            return False

    def count_return(self, message: dramatiq.MessageProxy) -> int:
        """Count that a message came back; returns how often it has."""
        return int(self.client.incr(self._returns(message)))

    def forget_returns(self, message: dramatiq.MessageProxy) -> None:
        """The message has ended."""
        try:
            self.client.delete(self._returns(message))
        except redis.RedisError as error:
            self.logger.warning("Message %s, if it comes back, counts once too often: %s", message.message_id, error)

    def _returns(self, message: dramatiq.MessageProxy) -> str:
        return f"{self.namespace}:returns:{message.message_id}"

    def check(self) -> None:
        """Raise if the queue cannot be reached."""
        self.table.check()
        self.client.ping()

    def count(self, queue: str) -> tuple[int, int]:
        """How many messages wait in Redis, and how many workers hold that live."""
        with connection_errors():
            workers = self._workers()
            with self.client.pipeline() as pipe:
                pipe.llen(self._key(queue))
                for worker in workers:
                    pipe.scard(self._held(worker, queue))
                waiting, *held = pipe.execute()
        running = sum(count for count, until in zip(held, workers.values(), strict=True) if until)
        return waiting + sum(held) - running, running

    def look(self, queue: str, limit: int | None = None) -> Iterator[ServerMessage]:
        """The messages in Redis, and who holds them; what a dead worker holds waits for another one."""
        for worker, until, ids in self._ids(queue, limit):
            for start in range(0, len(ids), AT_ONCE):
                with connection_errors():
                    payloads: list[Any] = self.client.hmget(f"{self._key(queue)}.msgs", ids[start : start + AT_ONCE])
                # Meanwhile some may have ended.
                yield from (ServerMessage(payload, worker, until) for payload in payloads if payload)

    def remove(self, queue: str, ids: Collection[str]) -> int:
        """Drop waiting messages by the ids that Redis has for them; returns how many still waited."""
        keys = self._key(queue), f"{self._key(queue)}.msgs", self._key("__heartbeats__"), self._key("__acks__.")
        with connection_errors():
            return self.client.eval(REMOVE, len(keys), *keys, queue, self._dead_since(), *ids)

    def purge(self, queue: str) -> int:
        """Drop all messages that wait in Redis, and none that a living worker holds; returns how many."""
        count = 0
        while ids := [name for worker, _, names in self._ids(queue, AT_ONCE) if worker is None for name in names]:
            count += self.remove(queue, ids)
        return count

    def _ids(self, queue: str, limit: int | None) -> list[tuple[str | None, float | None, list[Any]]]:
        """The ids that wait, and those that each worker holds, as they are at one moment."""
        with connection_errors():
            workers = self._workers()
            with self.client.pipeline() as pipe:
                pipe.lrange(self._key(queue), 0, -1 if limit is None else limit - 1)
                for worker in workers:
                    pipe.smembers(self._held(worker, queue))
                waiting, *held = pipe.execute()
        holders = [(worker if until else None, until) for worker, until in workers.items()]
        return [(None, None, waiting), *((*holder, list(ids)) for holder, ids in zip(holders, held, strict=True))]

    def _workers(self) -> dict[str, float | None]:
        """The workers by name, and until when each counts as alive; None for those that do not any more."""
        beats: Any = self.client.zrange(self._key("__heartbeats__"), 0, -1, withscores=True)
        dead = self._dead_since()
        return {name.decode(): (beat + self.heartbeat_timeout) / 1000 if beat > dead else None for name, beat in beats}

    def _dead_since(self) -> int:
        return round(time.time() * 1000) - self.heartbeat_timeout

    def _key(self, name: str) -> str:
        return f"{self.namespace}:{name}"

    def _held(self, worker: str, queue: str) -> str:
        return self._key(f"__acks__.{worker}.{queue}")


@contextmanager
def connection_errors() -> Iterator[None]:
    """A failing server as the error on which Dramatiq's worker tries again; on any other one it gives up."""
    try:
        yield
    except redis.RedisError as error:
        raise ConnectionClosed(error) from None
