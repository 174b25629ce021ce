"""Static files under names that change with their content, so that browsers may keep them."""

import json

from flask import Flask

from config import Settings

# Seconds; the longest that HTTP caches are used to, RFC 2616 section 14.21.
YEAR = 31_536_000


def register(app: Flask, settings: Settings) -> None:
    """Make `url_for` give the names in `static.json`, which `deploy/artifact.py` writes; elsewhere there is none."""
    try:
        names = json.loads((settings.root / "static.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    kept = set(names.values())
    age_of = app.get_send_file_max_age

    @app.url_defaults
    def use_hashed_name(endpoint: str, values: dict[str, str]) -> None:
        if endpoint == "static":
            values["filename"] = names.get(values["filename"], values["filename"])

    def age(filename: str | None) -> int | None:
        return YEAR if filename in kept else age_of(filename)

    app.get_send_file_max_age = age  # type: ignore[method-assign]
