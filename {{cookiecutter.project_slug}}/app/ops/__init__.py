"""What operators need: is it alive, is it ready, what does it do; and the nightly clean-up."""

from flask import Flask

from app.ops import dashboard, jobs, views

__all__ = ["jobs", "register"]


def register(app: Flask) -> None:
    app.register_blueprint(views.blueprint)
    app.register_blueprint(dashboard.blueprint)
