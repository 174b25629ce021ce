"""WSGI: `app`, for `gunicorn web:app`, which reads gunicorn.conf.py. `python web.py` becomes that."""

import os
import sys

from app import create_app
from config import ROOT, exit_on_problems, find_app_dir

with exit_on_problems():
    if __name__ == "__main__":
        # What was relative to the caller's folder is not relative to the project's.
        os.environ["APP_DIR"] = str(find_app_dir().path)
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "web:app"])  # noqa: S606  (fixed arguments)
    app = create_app()
