"""The blog: everybody reads posts, users write them."""

from flask import Flask

from app.blog.commands import posts
from app.blog.models import Post, posts_by
from app.blog.views import blueprint, index

__all__ = ["Post", "register"]


def register(app: Flask) -> None:
    """Add the feature to `app`, with its index as the front page."""
    app.register_blueprint(blueprint)
    app.add_url_rule("/", "index", index)
    app.add_template_global(posts_by)
    app.cli.add_command(posts)
