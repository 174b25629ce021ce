"""Errors of requests and jobs to Sentry: what went wrong and where, and nothing about anybody."""

from typing import Any, cast

import dramatiq
import sentry_sdk
import structlog
import svcs
from flask import Flask
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import BadDsn

from app.logs import hide
from config import Settings, project_version

# Seconds that errors get to be sent when a process ends.
PATIENCE = 2.0
# What the log lines of a request or a job carry, and Sentry can be searched for.
TAGS = ("request_id", "job", "message_id")
# The SDK's own categories; what it collects all the same, `clean` takes out.
NOTHING_PERSONAL: Any = {
    "user_info": False,
    "cookies": {"mode": "off"},
    "http_headers": {"request": {"mode": "off"}},
    "http_bodies": [],
    "url_query_params": {"mode": "off"},
    "database_query_data": False,
    "queues": False,
    "stack_frame_variables": False,
}


class Flush(dramatiq.Middleware):
    """Sends what is left when a worker stops: its process ends without what Python does at the end of others."""

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        """Wait for it."""
        sentry_sdk.flush(PATIENCE)


def start(app: Flask, settings: Settings) -> None:
    """Send errors. Dramatiq logs those of jobs, and every error that is logged is sent.

    Raises:
        ValueError: the DSN is not one.
    """
    try:
        sentry_sdk.init(
            settings.telemetry.sentry_dsn,
            release=f"{settings.app.slug}@{project_version(settings.root)}",
            environment=settings.environment,
            before_send=clean,
            data_collection=NOTHING_PERSONAL,
            max_request_body_size="never",
            include_local_variables=False,
            max_breadcrumbs=0,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[
                AtexitIntegration(callback=lambda _pending, _timeout: None),
                DedupeIntegration(),
                ExcepthookIntegration(),
                FlaskIntegration(transaction_style="url"),
                LoggingIntegration(level=None),
            ],
            shutdown_timeout=PATIENCE,
        )
    except BadDsn:
        raise ValueError("expected a DSN as Sentry's project settings show it") from None
    svcs.flask.register_value(app, sentry_sdk.Client, sentry_sdk.get_client(), on_registry_close=stop)
    with app.app_context():
        svcs.flask.get_abstract(dramatiq.Broker).add_middleware(Flush())


def stop() -> None:
    """Send what is left, and nothing from then on."""
    sentry_sdk.get_client().close(PATIENCE)
    sentry_sdk.get_global_scope().set_client(None)


def clean(event: Event, _hint: Hint) -> Event:
    """Of a request its method and route's address, of messages and errors the text without secrets."""
    found = cast(dict[str, Any], event)
    asked = found.pop("request", {})
    for name in ("user", "extra", "breadcrumbs"):
        found.pop(name, None)
    if "exception" in found:
        # The line in the log says again what the error says, with a job's arguments in it.
        found.pop("logentry", None)
    found = hide(found)
    if asked:
        found["request"] = {"method": asked.get("method"), "url": asked.get("url", "").partition("?")[0]}
    context = structlog.contextvars.get_contextvars()
    found["tags"] = {**(found.get("tags") or {}), **{name: context[name] for name in TAGS if name in context}}
    return cast(Event, found)
