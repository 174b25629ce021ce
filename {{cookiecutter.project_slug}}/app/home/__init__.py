"""The front page of a service that has no other feature yet."""

from flask import Flask, render_template

__all__ = ["register"]


def register(app: Flask) -> None:
    """Add the page to `app`."""
    app.add_url_rule("/", "index", index)


def index() -> str:
    """Where to start."""
    return render_template("home/index.html")
