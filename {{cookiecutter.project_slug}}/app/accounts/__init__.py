"""Accounts: registration, login, profiles with pictures, pages to look after one, and the commands `main.py user`."""

from flask import Flask

from app.accounts import account
from app.accounts.commands import user
from app.accounts.models import USERNAME, User, find_user
from app.accounts.sessions import start_session
from app.accounts.views import blueprint

__all__ = ["USERNAME", "User", "find_user", "register", "start_session"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.register_blueprint(account.blueprint)
    app.cli.add_command(user)
