"""Jobs for profile pictures, for mails with links, and for sessions."""

from typing import Any

import dramatiq
import svcs
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.accounts.links import new_token, state_of
from app.accounts.models import User
from app.accounts.pictures import UnusablePicture, small_picture
from app.accounts.sessions import UserSession, is_current
from app.mail import MailRefused, send_mail
from app.removals import remove_later, remove_unnamed
from database.schedule import scheduled
from storage import NotFound
from storage.disks import Disks

# What users have sent. It lies on the default disk and is never shown; a job makes a picture of it on `media`.
UPLOADS = "accounts/uploads"
# Stands in the place of an upload that could not be decoded, so that its user is told.
DAMAGED = "damaged"


def forget_upload(user_id: int, upload: str, instead: str | None = None) -> None:
    """Remove an upload that will be no picture, so that its user does not wait for ever."""
    user = svcs.flask.get(Session).get(User, user_id, with_for_update=True)
    if user and user.picture_upload == upload:
        user.picture_upload = instead
    remove_later("default", f"{UPLOADS}/{upload}")


@dramatiq.actor
def give_up_picture(message: dict[str, Any], _retries: dict[str, int]) -> None:
    """End a `make_picture` that has failed for good."""
    forget_upload(*message["args"])


@dramatiq.actor(max_retries=5, on_retry_exhausted=give_up_picture.actor_name)
def make_picture(user_id: int, upload: str) -> None:
    """Turn an upload, a file in UPLOADS on the default disk, into the user's picture if no newer one has come since."""
    disks = svcs.flask.get(Disks)
    source, target = f"{UPLOADS}/{upload}", f"pictures/{upload}.webp"
    try:
        with disks["default"].reader(source) as stream:
            small = small_picture(stream)
    except NotFound:
        return  # The job ran to its end a day ago, and its worker was killed before it could say so.
    except UnusablePicture:
        forget_upload(user_id, upload, instead=DAMAGED)
        return
    disks["media"].write(target, small)
    user = svcs.flask.get(Session).get(User, user_id, with_for_update=True)
    if user and user.picture_upload == upload:
        if user.picture:
            remove_later("media", user.picture)
        user.picture, user.picture_upload = target, None
    elif not user or user.picture != target:  # It is the target if the job has run before.
        remove_later("media", target)
    remove_later("default", source)


@scheduled("15 3 * * *")
@dramatiq.actor
def remove_abandoned_uploads(_slot: str) -> None:
    """Remove the uploads that no user waits for; the others are kept, however long no worker has run."""
    awaited = svcs.flask.get(Session).scalars(select(User.picture_upload).where(User.picture_upload.is_not(None)))
    remove_unnamed("default", UPLOADS, {f"{UPLOADS}/{upload}" for upload in awaited})


@dramatiq.actor(max_retries=10, throws=MailRefused)
def mail_confirmation(user_id: int, address: str, state: str) -> None:
    """Send a link that makes the address the user's own, unless the account has changed since that was asked for."""
    user = svcs.flask.get(Session).get(User, user_id)
    if user and state_of(user) == state:
        token = new_token("confirm", user, address)
        send_mail(address, "accounts/mail/confirm", user=user, address=address, token=token)


@dramatiq.actor(max_retries=10, throws=MailRefused)
def mail_reset(address: str) -> None:
    """Send a link to a new password to each account that has confirmed the address, as it is written there."""
    confirmed = func.lower(User.email) == func.lower(address), User.email_confirmed.is_not(None)
    for user in svcs.flask.get(Session).scalars(select(User).where(*confirmed).limit(10)).all():
        send_mail(user.email, "accounts/mail/reset", user=user, token=new_token("reset", user, user.email))


@scheduled("20 3 * * *")
@dramatiq.actor
def remove_old_sessions(_slot: str) -> None:
    """Delete the sessions that have had their time."""
    svcs.flask.get(Session).execute(delete(UserSession).where(~is_current()))
