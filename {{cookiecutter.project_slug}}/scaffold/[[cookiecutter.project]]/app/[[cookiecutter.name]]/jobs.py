"""Timed jobs for [[ cookiecutter.things ]]."""

from datetime import timedelta

import dramatiq
import svcs
from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.[[ cookiecutter.name ]].models import [[ cookiecutter.model ]]
from app.[[ cookiecutter.name ]].settings import [[ cookiecutter.settings ]]
from database import utc_now
from database.schedule import scheduled


@scheduled("45 3 * * *")
@dramatiq.actor
def remove_archived_[[ cookiecutter.name ]](_slot: str) -> None:
    """Delete what has been archived for longer than `keep_days`."""
    before = utc_now() - timedelta(days=svcs.flask.get([[ cookiecutter.settings ]]).keep_days)
    svcs.flask.get(Session).execute(delete([[ cookiecutter.model ]]).where([[ cookiecutter.model ]].archived < before))
