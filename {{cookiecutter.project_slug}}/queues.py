"""Runs the queue's workers: `python queues.py`, or `dramatiq queues` with Dramatiq's own options."""

import sys

import dramatiq
from gunicorn.systemd import sd_notify

from app import create_app
from app.services import require_migrated
from config import ROOT, exit_on_problems, load

with exit_on_problems():
    settings = load()
    app = create_app(settings)
    require_migrated(app)


def main() -> None:
    """Start processes and threads as `config/queue.yaml` says, until SIGTERM or Ctrl-C."""
    from dramatiq import cli

    queue, jobs = settings.queue, dramatiq.get_broker().actors
    app.logger.info("queue runs %d jobs with %d x %d threads", len(jobs), queue.processes, queue.threads)
    arguments = ["queues", "--skip-logging", "--path", str(ROOT)]
    arguments += ["--processes", str(queue.processes), "--threads", str(queue.threads)]
    arguments += ["--worker-shutdown-timeout", str(queue.shutdown_timeout * 1000)]
    # A worker that was told of systemd's socket could speak for all of them.
    sd_notify("READY=1", app.logger, unset_environment=True)
    sys.exit(cli.main(cli.make_argument_parser().parse_args(arguments)))


if __name__ == "__main__":
    main()
