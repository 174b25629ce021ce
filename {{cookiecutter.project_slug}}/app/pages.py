"""What all templates may use: settings, dates, and addresses of static files that change with their content."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask, render_template, request
from markupsafe import Markup

from config import Settings, feature_names


def register(app: Flask, settings: Settings) -> None:
    """Give templates the settings, the `day` filter, and versions of static files."""
    features = feature_names()
    # Known beforehand: to look for a template that is not there takes a part of each request.
    in_menu = [name for name in features if (settings.root / f"app/{name}/templates/{name}/_nav.html").is_file()]
    app.jinja_env.globals.update(settings=settings, features=features, in_menu=in_menu)
    app.add_template_filter(day)
    # In development, files change while the service runs.
    if not app.config["TEMPLATES_AUTO_RELOAD"]:
        add_versions(app)


def add_versions(app: Flask) -> None:
    """Let `url_for` add a version, `/static/style.css?v=1a2b3c4d`, with which browsers keep the file for a year."""
    folder, age_of = Path(app.static_folder or ""), app.get_send_file_max_age
    files = [path for path in folder.rglob("*") if path.is_file()]
    versions = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in files}

    @app.url_defaults
    def add_version(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static":
            values["v"] = versions.get(values["filename"])

    def age(filename: str | None) -> int | None:
        asked = request.args.get("v")
        # The longest that HTTP caches are used to, RFC 2616 section 14.21.
        return 365 * 24 * 3600 if asked and asked == versions.get(filename or "") else age_of(filename)

    app.get_send_file_max_age = age  # type: ignore[method-assign]


def day(moment: datetime) -> Markup:
    """A date for people, with the exact time for programs."""
    # Safe as it is: a date holds nothing that a page would have to escape.
    return Markup(f'<time datetime="{moment.isoformat()}">{moment:%-d %B %Y}</time>')  # noqa: S704


def front_page() -> str:
    """Where to start, in a service that has no feature for it."""
    return render_template("index.html")
