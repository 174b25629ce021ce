"""Runs the queue's workers: `python queues.py`, or `dramatiq queues` with Dramatiq's own options."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import dramatiq
from gunicorn.systemd import sd_notify

from app import create_app, metrics
from app.services import require_migrated
from config import exit_on_problems, load

# Seconds that a worker gets to end beside those for its jobs.
PATIENCE = 5

with exit_on_problems():
    settings = load()
    app = create_app(settings)
    metrics.share(app)
    require_migrated(app)
broker = dramatiq.get_broker()


def end_with(parent: int | None) -> None:
    """Stop soon after the process is gone that would tell us to: nobody else could, nor would anybody see our log."""
    # A `join()` of it would also wait for the workers that were forked after this one.
    with suppress(ProcessLookupError):
        while parent:
            os.kill(parent, 0)
            time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    # At the end of its start, Dramatiq waits for its parent: for good, if that is gone.
    time.sleep(settings.queue.shutdown_timeout + PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


if parent := multiprocessing.parent_process():
    threading.Thread(target=end_with, args=(parent.pid,), daemon=True).start()


def main() -> None:
    """Start processes and threads as `config/queue.yaml` says, until SIGTERM or Ctrl-C."""
    from dramatiq import cli

    queue = settings.queue
    app.logger.info("queue runs %d jobs with %d x %d threads", len(broker.actors), queue.processes, queue.threads)
    arguments = ["queues", "--skip-logging", "--path", str(Path(__file__).resolve().parent)]
    arguments += ["--processes", str(queue.processes), "--threads", str(queue.threads)]
    arguments += ["--worker-shutdown-timeout", str(queue.shutdown_timeout * 1000)]
    # A worker that was told of systemd's socket could speak for all of them.
    sd_notify("READY=1", app.logger, unset_environment=True)
    sys.exit(cli.main(cli.make_argument_parser().parse_args(arguments)))


if __name__ == "__main__":
    main()
