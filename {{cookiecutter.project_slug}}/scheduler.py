"""Runs the timed jobs: `python scheduler.py`. Any number of them may run; each slot is sent once."""

import functools
import signal
import threading

from gunicorn.systemd import sd_notify

from app import create_app
from app.services import require_migrated, transaction
from config import exit_on_problems, load
from database import schedule

with exit_on_problems():
    settings = load()
    app = create_app(settings)
    require_migrated(app)


def main() -> None:
    """Send due jobs until SIGTERM or Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    disabled = settings.schedule.disabled
    app.logger.info("scheduler runs %d schedules", len(schedule.SCHEDULES) - len(disabled))
    sd_notify("READY=1", app.logger)
    schedule.run(functools.partial(transaction, app), stop, disabled)


if __name__ == "__main__":
    main()
