"""What surrounds every job: an app context, a transaction, and log lines that say who sent it and in which request."""

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker
from flask import Flask, g, has_request_context
from sqlalchemy import inspect

from app import logs


class NoBroker(StubBroker):
    """Modules with jobs can be imported before there is an app: their actors wait here until `services` moves them."""

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Refuse what nobody would ever run."""
        raise RuntimeError(f"{message.actor_name} cannot be sent before there is an app: call app.create_app() first")


if dramatiq.broker.global_broker is None:
    dramatiq.set_broker(NoBroker())

# What of a request's identity goes with the jobs that it sends.
CARRIED = ("request_id", "user_id", "trace_id")

logger = logging.getLogger("app.job")


def known_user_id() -> int | None:
    """Who sent the running request, if somebody has asked for that already: the database is not asked for a log line.

    The number of the row: what Flask-Login keeps in the session is as good as a password.
    """
    user = g.get("_login_user") if has_request_context() else None
    if user is None or not user.is_authenticated:
        return None
    identity = inspect(user).identity
    return identity[0] if identity else None


class AppContext(dramatiq.Middleware):
    """Runs each job in an app context with a session of its own, committed when the job returns.

    The actor's function is wrapped, so that a commit that fails is a job that fails, and is tried again; Dramatiq
    only logs what goes wrong in hooks that run after a job.
    """

    def __init__(self, app: Flask, transaction: Callable[[Flask], AbstractContextManager[Any]]) -> None:
        self.app = app
        self.transaction = transaction
        self.began = threading.local()

    def before_enqueue(self, _broker: dramatiq.Broker, message: dramatiq.Message[Any], _delay: int | None) -> None:
        """Send the ids of the request, its user and its trace along, also from job to job."""
        sender = {"user_id": known_user_id(), **logs.context.get()}
        for name in CARRIED:
            if sender.get(name) is not None:
                message.options.setdefault(name, sender[name])

    def before_process_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """Put those ids, and the job's own, into every log line of the job."""
        logs.context.set(
            {
                **{name: message.options[name] for name in CARRIED if name in message.options},
                "job": message.actor_name,
                "message_id": message.message_id,
                "attempt": message.options.get("retries", 0) + 1,
            }
        )
        self.began.at = time.perf_counter()
        logger.info("job started")

    def after_process_message(
        self,
        _broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Say how it ended and how long it took; Dramatiq logs the traceback of one that failed."""
        took = {"milliseconds": round((time.perf_counter() - self.began.at) * 1000, 1)}
        # One that another middleware has failed comes without an exception.
        if exception or message.failed:
            logger.warning("job failed", extra={"error": type(exception or message._exception).__name__, **took})
        else:
            logger.info("job done", extra=took)
        logs.context.set({})

    def after_skip_message(self, _broker: dramatiq.Broker, _message: dramatiq.MessageProxy) -> None:
        """Say that it did not run: it was too old, or took its workers down."""
        logger.warning("job skipped")
        logs.context.set({})

    def after_declare_actor(self, _broker: dramatiq.Broker, actor: dramatiq.Actor[..., Any]) -> None:
        """Wrap the actor's own function, whatever an earlier app has wrapped around it."""
        function = getattr(actor.fn, "without_transaction", actor.fn)

        @functools.wraps(function)
        def in_transaction(*args: Any, **kwargs: Any) -> Any:
            with self.transaction(self.app):
                return function(*args, **kwargs)

        in_transaction.without_transaction = function  # type: ignore[attr-defined]
        actor.fn = in_transaction
