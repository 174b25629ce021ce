"""Accounts: registration, login, profiles with pictures, and the commands of `main.py user`."""

from flask import Flask

from app.accounts.commands import user
from app.accounts.models import User
from app.accounts.views import blueprint

__all__ = ["User", "register"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.cli.add_command(user)
