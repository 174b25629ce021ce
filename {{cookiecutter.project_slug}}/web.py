"""WSGI: `app` for gunicorn, which reads gunicorn.conf.py. `python web.py` starts it."""

import os
import sys
from pathlib import Path

from app import create_app
from config import exit_on_problems, load

with exit_on_problems():
    settings = load()
    app = create_app(settings)


def main() -> None:
    """Become gunicorn."""
    os.environ["APP_DIR"] = str(settings.app_dir.path)
    os.chdir(Path(__file__).resolve().parent)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "web:app"])  # noqa: S606  (fixed arguments)


if __name__ == "__main__":
    main()
