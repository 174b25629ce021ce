"""Static files under addresses that change with their content, so that browsers may keep them."""

import hashlib
from pathlib import Path
from typing import Any

from flask import Flask, request


def register(app: Flask) -> None:
    """Let `url_for` add a version, `/static/style.css?v=1a2b3c4d`, with which browsers keep the file for a year."""
    if app.config["TEMPLATES_AUTO_RELOAD"]:
        return  # In development, files change while the service runs.
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
