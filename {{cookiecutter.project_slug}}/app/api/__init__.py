"""The API for programs: personal tokens, and what the operations of features are made with; each has its own."""

from flask import Flask

from app.api.commands import token
from app.api.jobs import remove_ended
from app.api.operations import Paging, api_blueprint, operation, page_links, require_match
from app.api.views import blueprint

__all__ = ["Paging", "api_blueprint", "operation", "page_links", "register", "remove_ended", "require_match"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.cli.add_command(token)
