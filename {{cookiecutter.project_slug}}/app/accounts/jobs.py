"""Jobs around profile pictures."""

import logging
from contextlib import suppress
from datetime import timedelta
from typing import Any

import dramatiq
import svcs
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts.models import User
from app.accounts.pictures import small_picture
from backup import PUT_OFF, BackupRunning, removal
from config import Settings
from database import utc_now
from database.schedule import scheduled
from storage import NotFound
from storage.disks import Disks

# What users have sent, not for showing: it lies on the default disk until a job has made a picture of it on `media`.
UPLOADS = "accounts/uploads"

logger = logging.getLogger(__name__)


@dramatiq.actor
def give_up_picture(message: dict[str, Any], _retries: dict[str, int]) -> None:
    """Forget the upload of a `make_picture` that has failed for good, so that its user does not wait for ever."""
    user_id, upload = message["args"]
    user = svcs.flask.get(Session).get(User, user_id, with_for_update=True)
    if user and user.picture_upload == upload:
        user.picture_upload = None
    remove_file.send("default", f"{UPLOADS}/{upload}")


@dramatiq.actor(max_retries=5, on_retry_exhausted=give_up_picture.actor_name)
def make_picture(user_id: int, upload: str) -> None:
    """Make what a user has uploaded the picture that is shown, unless another upload has come after it.

    Args:
        user_id: whose picture it is.
        upload: the name of the upload, a file in UPLOADS on the default disk.
    """
    disks = svcs.flask.get(Disks)
    source, target = f"{UPLOADS}/{upload}", f"pictures/{upload}.webp"
    try:
        with disks["default"].reader(source) as stream:
            small = small_picture(stream)
    except NotFound:
        return  # This job has run before, and its worker was lost before it could say so.
    disks["media"].write(target, small)
    # Only now, so that nobody waits for a database that is locked while a picture is made.
    user = svcs.flask.get(Session).get(User, user_id, with_for_update=True)
    if user and user.picture_upload == upload:
        if user.picture:
            remove_file.send("media", user.picture)
        user.picture, user.picture_upload = target, None
    elif not user or user.picture != target:  # It is, if this job has run before.
        remove_file.send("media", target)
    remove_file.send("default", source)


@dramatiq.actor
def remove_file(disk: str, path: str) -> None:
    """Delete a file. Sent in a transaction, it is deleted if and only if that transaction commits.

    While a backup is made, it is put off: see `backup.lock`.
    """
    try:
        with removal(svcs.flask.get(Settings).app_dir), suppress(NotFound):
            svcs.flask.get(Disks)[disk].remove(path)
    except BackupRunning:
        remove_file.send_with_options(args=(disk, path), delay=PUT_OFF)


@scheduled("15 3 * * *")
@dramatiq.actor
def remove_abandoned_uploads(slot: str) -> None:
    """Delete pictures that were stored by requests that failed afterwards, a day later."""
    uploads = svcs.flask.get(Disks)["default"]
    yesterday = utc_now() - timedelta(days=1)
    old = [entry for entry in uploads.list(UPLOADS) if entry.modified < yesterday]
    # What a user still waits for is kept, however long no worker has run.
    waiting = select(User.picture_upload).where(User.picture_upload.is_not(None))
    session = svcs.flask.get(Session)
    awaited = {f"{UPLOADS}/{upload}" for upload in session.scalars(waiting)}
    session.commit()  # Nobody's writes shall wait while files are removed.
    abandoned = [entry for entry in old if entry.path not in awaited]
    try:
        for entry in abandoned:
            with removal(svcs.flask.get(Settings).app_dir), suppress(NotFound):
                uploads.remove(entry.path)
    except BackupRunning:
        remove_abandoned_uploads.send_with_options(args=(slot,), delay=PUT_OFF)
        return
    logger.info("removed %d abandoned uploads, due %s", len(abandoned), slot)
