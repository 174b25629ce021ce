"""Static files under addresses that change with their content, so that browsers may keep them."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, request
from werkzeug.security import safe_join

# Seconds; the longest that HTTP caches are used to, RFC 2616 section 14.21.
YEAR = 31_536_000


def register(app: Flask) -> None:
    """Let `url_for` add a version, `/static/style.css?v=1a2b3c4d`, with which browsers keep the file for a year."""
    if app.config["TEMPLATES_AUTO_RELOAD"]:
        return  # In development, files change while the service runs.
    age_of = app.get_send_file_max_age

    @lru_cache(1000)
    def version(filename: str) -> str | None:
        path = Path(safe_join(app.static_folder or "", filename) or "")
        return hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else None

    @app.url_defaults
    def add_version(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static":
            values["v"] = version(values["filename"])

    def age(filename: str | None) -> int | None:
        asked = request.args.get("v")
        return YEAR if asked and filename and asked == version(filename) else age_of(filename)

    app.get_send_file_max_age = age  # type: ignore[method-assign]
