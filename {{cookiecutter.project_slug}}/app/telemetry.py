"""Errors to Sentry, by a setting alone. Traces need no code: `opentelemetry-instrument gunicorn web:app`."""

from app.logs import hide
from config import Settings, project_version


def start(settings: Settings) -> None:
    """Send errors, if the settings name a receiver; raises `ConfigError` if the package is not installed."""
    if not (dsn := settings.telemetry.sentry_dsn):
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.dramatiq import DramatiqIntegration
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed; run `make lock EXTRAS=sentry && make setup`"
        raise settings.wrong("telemetry.sentry_dsn", dsn, reason) from None
    sentry_sdk.init(
        dsn,
        release=f"{settings.app.slug}@{project_version(settings.root)}",
        environment=settings.environment,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        before_send=lambda event, _hint: hide(event),
        integrations=[DramatiqIntegration()],
    )
