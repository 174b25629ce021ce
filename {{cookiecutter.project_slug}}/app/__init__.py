"""The service: settings, services and features, wired together."""

from importlib import import_module

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app import errors, extensions, files, logs, metrics, pages, request_hooks, services, telemetry, transfers, watchdog
from app.commands import queue, schedule
from config import Settings, load, require_safe
from database.schedule import SCHEDULES


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application.

    Args:
        settings: what to run with; read from `config/` and the environment if not given.

    Raises:
        ConfigError: a setting is wrong or unsafe.
    """
    settings = settings or load()
    require_safe(settings)
    logs.set_up(settings)
    telemetry.start(settings)
    import_module("app.jobs")  # Here, so that a mistake in a schedule is one line, as in those of the features.
    features = [import_module(f"app.{name}") for name in settings.app.features]
    if unknown := set(settings.schedule.disabled) - set(SCHEDULES):
        raise settings.wrong("schedule.disabled", min(unknown), f"expected some of {', '.join(sorted(SCHEDULES))}")

    app = Flask(__name__)
    app.config.from_mapping(flask_config(settings))
    if proxies := settings.web.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]

    services.register(app, settings)
    metrics.register(app)
    # Before the extensions, which may refuse a request: that answer has an identity and headers as well.
    request_hooks.register(app, settings)
    watchdog.register(app, settings)
    extensions.register(app)
    errors.register(app)
    pages.register(app, settings)
    app.add_url_rule("/files/<disk>/<path:path>", "files", files.send)
    app.add_url_rule("/transfers/<key>", "transfer", transfers.show)
    for feature in features:
        feature.register(app)
    if "index" not in app.view_functions:
        app.add_url_rule("/", "index", pages.front_page)
    app.cli.add_command(queue)
    app.cli.add_command(schedule)
    return app


def flask_config(settings: Settings) -> dict[str, object]:
    """The settings that Flask and its extensions read by their own names."""
    secure = settings.security.cookie_secure
    return {
        "DEBUG": settings.app.debug,
        "TESTING": settings.environment == "testing",
        "TEMPLATES_AUTO_RELOAD": settings.environment == "development",
        "SECRET_KEY": settings.app.secret_key,
        "SECRET_KEY_FALLBACKS": settings.app.secret_key_fallbacks,
        "MAX_CONTENT_LENGTH": settings.security.max_request_size,
        "MAX_FORM_MEMORY_SIZE": settings.security.max_request_size,
        "TRUSTED_HOSTS": settings.security.trusted_hosts or None,
        "PERMANENT_SESSION_LIFETIME": settings.security.session_lifetime,
        # Otherwise a picture that arrives after its page would set the older session cookie again.
        "SESSION_REFRESH_EACH_REQUEST": False,
        # The prefix makes browsers refuse the cookie from another host or without HTTPS, RFC 6265bis 4.1.3.
        "SESSION_COOKIE_NAME": ("__Host-" if secure else "") + settings.app.slug,
        "SESSION_COOKIE_SECURE": secure,
        "SESSION_COOKIE_SAMESITE": "Lax",
        # A form stays valid as long as the session it belongs to.
        "WTF_CSRF_TIME_LIMIT": None,
    }
