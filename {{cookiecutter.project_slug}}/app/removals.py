"""Files are removed a day after their row: a backup copies the database first, then the files that it names."""

from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta

import dramatiq
import svcs

from database import utc_now
from storage import NotFound
from storage.disks import Disks

DAY = timedelta(days=1)


def remove_later(disk: str, path: str) -> None:
    """Remove a file a day after the running transaction commits; if it is rolled back, the file stays."""
    remove_file.send_with_options(args=(disk, path), delay=DAY)


def remove_unnamed(disk: str, folder: str, named: Collection[str]) -> None:
    """Remove the files in a folder that no row names: their request failed after storing them, or their row is gone.

    Files of the last day are left alone, because a running request stores its file before it commits the row.
    """
    files = svcs.flask.get(Disks)[disk].list(folder)
    # A list first, because the first removal that is sent takes SQLite's lock.
    for path in [file.path for file in files if file.path not in named and file.modified < utc_now() - DAY]:
        remove_later(disk, path)


@dramatiq.actor
def remove_file(disk: str, path: str) -> None:
    with suppress(NotFound):
        svcs.flask.get(Disks)[disk].remove(path)
