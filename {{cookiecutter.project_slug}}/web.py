"""WSGI: `app` for gunicorn, which reads gunicorn.conf.py. `python web.py` starts it."""

import os
import sys
from pathlib import Path

from app import create_app, metrics
from config import exit_on_problems, load

with exit_on_problems():
    settings = load()
    app = create_app(settings)
    metrics.share(app)


def main() -> None:
    """Become gunicorn, unless the port is taken: then say so and exit with 1."""
    from processes import require_free_port

    require_free_port(settings.web)
    os.environ["APP_DIR"] = str(settings.app_dir.path)
    os.chdir(Path(__file__).resolve().parent)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "web:app"])  # noqa: S606  (fixed arguments)


if __name__ == "__main__":
    main()
