"""What operators need: is it alive, is it ready, what does it do; and the nightly clean-up."""

from flask import Flask

from app.ops import jobs
from app.ops.views import blueprint

__all__ = ["jobs", "register"]


def register(app: Flask) -> None:
    """Add the feature to `app`."""
    app.register_blueprint(blueprint)
