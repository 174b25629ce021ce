"""What all templates may use."""

from datetime import datetime

from flask import Flask
from markupsafe import Markup

from config import Settings


def register(app: Flask, settings: Settings) -> None:
    """Give templates the settings and the `day` filter."""
    app.jinja_env.globals["settings"] = settings
    app.add_template_filter(day)


def day(moment: datetime) -> Markup:
    """A date for people, with the exact time for programs."""
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), f"{moment:%-d %B %Y}")
