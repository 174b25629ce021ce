"""Errors to Sentry and traces to OpenTelemetry, each by a setting alone. Without the setting nothing is imported."""

from collections.abc import Callable
from importlib import import_module

from flask import Flask

from config import Settings

# What each setting needs: a module of this folder, and the extra whose packages it imports.
RECEIVERS = {"sentry_dsn": ("app.telemetry.errors", "sentry"), "otel_endpoint": ("app.telemetry.traces", "otel")}


def register(app: Flask, settings: Settings) -> None:
    """Start to send what the settings name a receiver for.

    Raises:
        ConfigError: the packages are not installed, or the receiver's address is not one.
    """
    for key, (module, extra) in RECEIVERS.items():
        if address := getattr(settings.telemetry, key):
            try:
                start: Callable[[Flask, Settings], None] = import_module(module).start
            except ModuleNotFoundError as error:
                reason = f"{error.name} is not installed; run `make lock EXTRAS={extra} && make setup`"
                raise settings.wrong(f"telemetry.{key}", address, reason) from None
            try:
                start(app, settings)
            except ValueError as error:
                raise settings.wrong(f"telemetry.{key}", address, error) from None
