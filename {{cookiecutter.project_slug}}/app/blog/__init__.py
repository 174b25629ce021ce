"""The blog: everybody reads posts, users write, import and export them."""

from flask import Flask

from app.blog import api
from app.blog.models import Post, latest_posts
from app.blog.views import blueprint, index

__all__ = ["Post", "register"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
    app.register_blueprint(api.blueprint)
    app.add_url_rule("/", "index", index)
    app.add_template_global(latest_posts)
