"""What operators need: is it alive, is it ready, what does it do; and the nightly clean-up."""

import svcs
from flask import Flask

from app.ops import dashboard, jobs
from app.ops.sizes import Sizes
from app.ops.views import blueprint
from config import Settings
from storage.disks import Disks

__all__ = ["dashboard", "jobs", "register"]


def register(app: Flask) -> None:
    """Add the feature to `app`."""
    with app.app_context():
        sizes = Sizes(svcs.flask.get(Settings).app_dir, svcs.flask.get(Disks))
    svcs.flask.register_value(app, Sizes, sizes)
    app.register_blueprint(blueprint)
