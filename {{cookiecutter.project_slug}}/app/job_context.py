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
        raise RuntimeError(f"{message.actor_name} cannot be sent before there is an app: call app.create_app() first")


if dramatiq.broker.global_broker is None:
    dramatiq.set_broker(NoBroker())

# The ids of a request that go with the jobs it sends.
CARRIED = ("request_id", "user_id")

logger = logging.getLogger("app.job")


def known_user_id() -> int | None:
    """The number of the user of this request, if one was loaded: a log line is no reason to ask the database.

    It is the number of the row, because what Flask-Login keeps in the session is as good as a password.
    """
    row = inspect(g.get("_login_user"), raiseerr=False) if has_request_context() else None
    return row.identity[0] if row and row.identity else None


class AppContext(dramatiq.Middleware):
    """Runs each job in an app context with a session of its own, which is committed when the job returns."""

    def __init__(self, app: Flask, transaction: Callable[[Flask], AbstractContextManager[Any]]) -> None:
        self.app, self.transaction, self.began = app, transaction, threading.local()

    def before_enqueue(self, _broker: dramatiq.Broker, message: dramatiq.Message[Any], _delay: int | None) -> None:
        sender = {"user_id": known_user_id(), **logs.context.get()}
        message.options.update((name, sender[name]) for name in CARRIED if sender.get(name))

    def before_process_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        carried = {name: message.options[name] for name in CARRIED if name in message.options}
        attempt = message.options.get("retries", 0) + 1
        # In every log line of the job.
        logs.context.set({**carried, "job": message.actor_name, "message_id": message.message_id, "attempt": attempt})
        self.began.at = time.perf_counter()
        logger.info("job started")

    def after_process_message(self, _broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        took = {"milliseconds": round((time.perf_counter() - self.began.at) * 1000, 1)}
        # One that another middleware has failed comes without an exception. Dramatiq logs the traceback.
        if exception or message.failed:
            logger.warning("job failed", extra={"error": type(exception or message._exception).__name__, **took})
        else:
            logger.info("job done", extra=took)
        logs.context.set({})

    def after_skip_message(self, _broker: dramatiq.Broker, _message: dramatiq.MessageProxy) -> None:
        logger.warning("job skipped")
        logs.context.set({})

    def after_declare_actor(self, _broker: dramatiq.Broker, actor: dramatiq.Actor[..., Any]) -> None:
        # The function is wrapped, because a job whose commit fails has to be tried again; what fails in a hook is only
        # logged. An earlier app may have wrapped it already.
        function = getattr(actor.fn, "without_transaction", actor.fn)

        @functools.wraps(function)
        def in_transaction(*args: Any, **kwargs: Any) -> Any:
            with self.transaction(self.app):
                return function(*args, **kwargs)

        in_transaction.without_transaction = function  # type: ignore[attr-defined]
        actor.fn = in_transaction
