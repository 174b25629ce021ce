"""What operators need: is it alive, is it ready, what does it do."""

from flask import Flask

from app.ops import dashboard, views

__all__ = ["register"]


def register(app: Flask) -> None:
    app.register_blueprint(views.blueprint)
    app.register_blueprint(dashboard.blueprint)
