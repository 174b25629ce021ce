"""Jobs that import and export posts."""

import logging
import shutil
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import dramatiq
import svcs
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.accounts.jobs import remove_file
from app.blog.archives import write_archive
from app.blog.csv_files import RowError, UnusableFile, write_report
from app.blog.forms import check_rows
from app.blog.models import (
    AnyTransfer,
    PostExport,
    PostImport,
    Transfer,
    count_posts,
    each_post,
    insert_posts,
    lock_unfinished,
)
from backup import PUT_OFF, BackupRunning, removal
from config import Settings
from database import utc_now
from database.schedule import scheduled
from storage import NotFound, Storage
from storage.disks import Disks

# What users have sent, on the default disk until its job takes it over.
UPLOADS = "blog/uploads"
KEEP_EXPORTS = timedelta(days=7)
KEEP_IMPORTS = timedelta(days=30)

logger = logging.getLogger(__name__)


@dramatiq.actor
def give_up_transfer(message: dict[str, Any], _retries: dict[str, int]) -> None:
    """Mark an import or export whose job has failed for good, so that its user does not wait for ever."""
    kind: type[Transfer] = PostImport if message["actor_name"] == import_posts.actor_name else PostExport
    if transfer := lock_unfinished(kind, message["args"][0]):
        transfer.finish("failed")


@dramatiq.actor(max_retries=5, on_retry_exhausted=give_up_transfer.actor_name)
def import_posts(import_id: int) -> None:
    """Make the rows of an uploaded file posts, all of them or none. Run again after it has ended, it does nothing."""
    if not (transfer := _start(PostImport, import_id)):
        return
    disks = svcs.flask.get(Disks)
    with (
        suppress(NotFound),  # This job has run before, as far as this.
        disks["default"].reader(f"{UPLOADS}/{transfer.upload}") as upload,
        disks["batches"].writer(transfer.batch) as batch,
    ):
        shutil.copyfileobj(upload, batch)
    remove_file.send("default", f"{UPLOADS}/{transfer.upload}")
    svcs.flask.get(Session).commit()

    posts: list[dict[str, str]] = []
    errors: list[RowError] = []
    problem = None
    try:
        with disks["batches"].reader(transfer.batch) as batch:
            posts, errors = check_rows(batch, partial(_report_progress, PostImport, import_id))
    except UnusableFile as error:
        problem = str(error)
    if errors:
        with disks["batches"].writer(transfer.report) as report:
            write_report(report, errors)
    # Only now, so that nobody waits for a database that is locked while a file is read.
    if not (locked := lock_unfinished(PostImport, import_id)):
        return
    locked.problem, locked.errors = problem, len(errors)
    locked.finish("refused" if problem or errors else "done")
    if locked.state == "done":
        insert_posts(locked.author_id, posts)


@dramatiq.actor(max_retries=5, on_retry_exhausted=give_up_transfer.actor_name)
def export_posts(export_id: int) -> None:
    """Write all posts of a user to the disk `exports`. Run again after it has ended, it does nothing."""
    if not (transfer := _start(PostExport, export_id)):
        return
    total = count_posts(transfer.author_id)
    _report_progress(PostExport, export_id, 0, total)
    with svcs.flask.get(Disks)["exports"].writer(transfer.path) as file:
        progress = partial(_report_progress, PostExport, export_id, total=total)
        write_archive(file, each_post(transfer.author_id), progress)
    if locked := lock_unfinished(PostExport, export_id):
        locked.finish("done")


@scheduled("45 3 * * *")
@dramatiq.actor
def remove_expired_exports(slot: str) -> None:
    """Delete exports after a week and finished imports after 30 days, and all files that belong to none.

    Such files come from requests that failed after an upload, and from accounts that are gone.
    """
    session, disks, now = svcs.flask.get(Session), svcs.flask.get(Disks), utc_now()
    session.execute(delete(PostExport).where(PostExport.created < now - KEEP_EXPORTS))
    session.execute(delete(PostImport).where(PostImport.finished < now - KEEP_IMPORTS))
    uploads = set(session.scalars(select(PostImport.upload)))
    imports, exports = (set(map(str, session.scalars(select(kind.id)))) for kind in (PostImport, PostExport))
    session.commit()  # Nobody's writes shall wait while files are removed.
    try:
        count = _remove_orphans(disks["default"], UPLOADS, uploads)
        count += _remove_orphans(disks["batches"], "posts", imports)
        count += _remove_orphans(disks["exports"], "posts", exports)
    except BackupRunning:
        remove_expired_exports.send_with_options(args=(slot,), delay=PUT_OFF)
        return
    logger.info("removed %d files of imports and exports, due %s", count, slot)


def _remove_orphans(disk: Storage, folder: str, kept: set[str]) -> int:
    """Delete what lies in `folder` under none of the names in `kept`, and is not of a request that still runs."""
    yesterday = utc_now() - timedelta(days=1)
    old = [entry.path for entry in disk.list(folder) if entry.modified < yesterday]
    orphans = [path for path in old if path.removeprefix(f"{folder}/").split("/")[0] not in kept]
    for path in orphans:
        with removal(svcs.flask.get(Settings).app_dir), suppress(NotFound):
            disk.remove(path)
    return len(orphans)


def _start(kind: type[AnyTransfer], number: int) -> AnyTransfer | None:
    transfer = lock_unfinished(kind, number)
    if transfer:
        transfer.state = "running"
    svcs.flask.get(Session).commit()
    return transfer


def _report_progress(kind: type[AnyTransfer], number: int, done: int, total: int) -> None:
    session = svcs.flask.get(Session)
    session.execute(update(kind).where(kind.id == number).values(done=done, total=total))
    session.commit()
