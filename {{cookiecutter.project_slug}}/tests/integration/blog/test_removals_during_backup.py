"""The clean-up of imports and exports puts it off while a backup is made."""

import os
from datetime import timedelta

from flask import Flask
from sqlalchemy import select

from app.blog.jobs import remove_expired_exports
from app.services import transaction
from backup.lock import no_removals
from config import Settings
from database import utc_now
from database.broker import QueueMessage
from storage.disks import Disks

SLOT = "2026-01-01T03:45:00+00:00"


def test_the_clean_up_of_exports_comes_back_after_the_backup(app: Flask, settings: Settings, disks: Disks) -> None:
    disks["exports"].write("posts/7/posts.zip", b"a")
    old = (utc_now() - timedelta(days=2)).timestamp()
    os.utime(settings.app_dir.data / "exports/posts/7/posts.zip", (old, old))
    with no_removals(settings.app_dir):
        remove_expired_exports(SLOT)
        assert disks["exports"].exists("posts/7/posts.zip")
    with transaction(app) as session:
        assert list(session.scalars(select(QueueMessage.actor))) == ["remove_expired_exports"]
    remove_expired_exports(SLOT)
    assert not disks["exports"].exists("posts/7/posts.zip")
