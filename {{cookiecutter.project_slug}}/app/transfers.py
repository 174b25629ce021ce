"""Imports and exports in the background: each has a row that says how far its job is, and a page that shows it."""

import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import dramatiq
import svcs
from flask import abort, jsonify, render_template
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required
from sqlalchemy import JSON, ForeignKey, String, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.extensions import require_room, wants_json
from app.removals import remove_unnamed
from config import Settings
from database import Base, utc_now
from database.schedule import scheduled
from storage.disks import Disks

FOLDER = "transfers"
KEPT = timedelta(days=7)
# Rows between two notes of how many are done.
STEP = 250
UNFINISHED = ("waiting", "running")

Row = TypeVar("Row")


class Transfer(Base):
    """An import (its file is on the disk `batches`) or an export (on `exports`), carried out by a job.

    `state` is waiting, running, done, refused (something is wrong in the file) or failed (in the service). `mistakes`
    are what is wrong in a refused file: the row, the column and a message.
    """

    __tablename__ = "transfer"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))
    disk: Mapped[str] = mapped_column(String(20))
    file: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    mistakes: Mapped[list[tuple[int, str, str]]] = mapped_column(JSON, default=list)
    created: Mapped[datetime] = mapped_column(default=utc_now)


def new_transfer(disk: str, file_name: str, total: int) -> Transfer:
    """A transfer of the user who is logged in. The caller sends its job."""
    session, key = svcs.flask.get(Session), secrets.token_hex(16)
    kept = select(func.count()).select_from(Transfer).where(Transfer.owner_id == current_user.id)
    most = svcs.flask.get(Settings).security.most_transfers
    require_room(session.scalar(kept) or 0, most, f"imports and exports of the last {KEPT.days} days")
    file = f"{FOLDER}/{key}/{file_name}"
    transfer = Transfer(id=key, owner_id=current_user.id, disk=disk, file=file, total=total)
    session.add(transfer)
    return transfer


def unfinished(key: str, *, lock: bool) -> Transfer | None:
    """A transfer, locked on request until the session commits; None if it has ended, so that no job does it twice."""
    transfer = svcs.flask.get(Session).get(Transfer, key, with_for_update=lock, populate_existing=True)
    return transfer if transfer and transfer.state in UNFINISHED else None


def counted(transfer: Transfer, rows: Iterable[Row]) -> Iterator[Row]:
    """Pass rows on, and commit now and then how many are done, so that the page can show it."""
    session, done = svcs.flask.get(Session), 0
    is_unfinished = Transfer.id == transfer.id, Transfer.state.in_(UNFINISHED)
    noted = update(Transfer).where(*is_unfinished).values(state="running")
    for done, row in enumerate(rows, 1):
        if done % STEP == 1:
            session.execute(noted.values(done=done - 1))
            session.commit()
        yield row
    session.execute(noted.values(done=done))
    session.commit()


@login_required
def show(key: str) -> ResponseReturnValue:
    """How far a transfer of the user's own is, or how it has ended."""
    transfer = svcs.flask.get(Session).get(Transfer, key)
    if transfer is None or transfer.owner_id != current_user.id:
        abort(404)
    finished = transfer.state not in UNFINISHED
    if wants_json():
        return jsonify(state=transfer.state, done=transfer.done, total=transfer.total, finished=finished)
    link = svcs.flask.get(Disks)[transfer.disk].url(transfer.file, expires=timedelta(hours=1))
    return render_template("transfer.html", transfer=transfer, finished=finished, link=link, days=KEPT.days)


@dramatiq.actor
def give_up_transfer(message: dict[str, Any], _retries: dict[str, int]) -> None:
    """End a transfer whose job has failed for good, so that its user does not wait for ever."""
    if transfer := unfinished(message["args"][0], lock=True):
        transfer.state = "failed"


@scheduled("45 3 * * *")
@dramatiq.actor
def forget_transfers(_slot: str) -> None:
    """Delete transfers after a week, and files that belong to none."""
    session = svcs.flask.get(Session)
    recent = Transfer.created >= utc_now() - KEPT
    named = set(session.scalars(select(Transfer.file).where(recent)))
    for disk in ("batches", "exports"):
        remove_unnamed(disk, FOLDER, named)
    session.execute(delete(Transfer).where(~recent))
