"""Jobs of every service, whatever its features."""

import logging

import dramatiq
import svcs

from backup.archive import create
from config import Settings
from database.schedule import scheduled

logger = logging.getLogger(__name__)


@scheduled("0 2 * * *")
@dramatiq.actor(time_limit=12 * 3600 * 1000, max_retries=3)  # It may have to read a large disk.
def back_up(slot: str) -> None:
    """Make a backup where `config/backup.yaml` says, as `python main.py backup create` does."""
    logger.info("backed up to %s; due %s", create(svcs.flask.get(Settings)), slot)


@dramatiq.actor(max_retries=0)
def do_nothing() -> None:
    """Show that a worker is alive: `python main.py check` sends it."""
