"""Runs the timed jobs: `python scheduler.py`. Any number of them may run; each slot is sent once."""

import functools
import signal
import threading
from typing import cast

import dramatiq
from gunicorn.systemd import sd_notify

from app import create_app, metrics
from app.services import require_migrated, transaction
from config import exit_on_problems, load
from database import queue_statistics, schedule
from database.broker import TableBroker

with exit_on_problems():
    settings = load()
    app = create_app(settings)
    metrics.share(app)
    require_migrated(app)


# Seconds.
SAMPLE_PATIENCE = 5


def main() -> None:
    """Send due jobs until SIGTERM or Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    broker = cast(TableBroker, dramatiq.get_broker())
    sampler = threading.Thread(target=queue_statistics.sample_every_minute, args=(broker, stop), daemon=True)
    sampler.start()
    disabled = settings.schedule.disabled
    app.logger.info("scheduler runs %d schedules", len(schedule.SCHEDULES) - len(disabled))
    sd_notify("READY=1", app.logger)
    schedule.run(functools.partial(transaction, app), stop, disabled)
    # One that is stuck on a server must not keep the process.
    sampler.join(SAMPLE_PATIENCE)


if __name__ == "__main__":
    main()
