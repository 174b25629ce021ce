"""What all templates may use, and the front page of a service that has no feature for it."""

from datetime import datetime

from flask import Flask, render_template
from markupsafe import Markup

from config import Settings


def register(app: Flask, settings: Settings) -> None:
    """Give templates the settings and the `day` filter."""
    app.jinja_env.globals["settings"] = settings
    app.add_template_filter(day)


def day(moment: datetime) -> Markup:
    """A date for people, with the exact time for programs."""
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%-d %B %Y}")


def front_page() -> str:
    """Where to start."""
    return render_template("index.html")
