"""Errors to Sentry, by a setting alone. Traces need no code: docs/recipes/monitoring.md."""

from app import logs
from config import Settings, mask, project_version


def start(settings: Settings) -> None:
    """Send errors, if the settings say where. Sentry has to be told before the queue's broker is made."""
    if not (dsn := settings.telemetry.sentry_dsn):
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.dramatiq import DramatiqIntegration
        from sentry_sdk.integrations.logging import ignore_logger

        # It logs what the integration sends, with the job's arguments.
        ignore_logger("dramatiq.worker.WorkerThread")
        sentry_sdk.init(
            dsn,
            release=f"{settings.app.slug}@{project_version(settings.root)}",
            environment=settings.environment,
            include_local_variables=False,
            max_request_body_size="never",
            before_send=lambda event, _hint: mask("", {**event, "tags": dict(logs.context.get())}),
            integrations=[DramatiqIntegration()],
        )
    except ModuleNotFoundError:
        hint = "sentry-sdk is not installed; run `make add PACKAGE=sentry-sdk && make setup`"
        raise settings.wrong("telemetry.sentry_dsn", dsn, hint) from None
    except ValueError as error:
        raise settings.wrong("telemetry.sentry_dsn", dsn, error) from None
