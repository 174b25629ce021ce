"""Accounts: register, log in, log out, profile."""

from flask import Flask

from app.accounts.models import User
from app.accounts.views import blueprint

__all__ = ["User", "register"]


def register(app: Flask) -> None:
    """Add the feature to `app`."""
    app.register_blueprint(blueprint)
