"""Links in mails, which prove that somebody reads what is sent to an address. Each works once, and for a while."""

import hashlib

import svcs
from flask import abort, current_app
from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy.orm import Session

from app.accounts.models import User
from app.accounts.sessions import digest

# Seconds that a link works, by what it is for.
LIFETIMES = {"confirm": 24 * 3600, "reset": 3600}


def new_token(purpose: str, user: User, address: str) -> str:
    """What such a link ends with. It holds a digest of what its use changes, which therefore ends it."""
    return _serializer(purpose).dumps([user.id, address, state_of(user)])


def read_token(purpose: str, token: str, *, lock: bool) -> tuple[User, str]:
    """The account and the address of a link; 403 for one that is not valid any more."""
    try:
        user_id, address, state = _serializer(purpose).loads(token, max_age=LIFETIMES[purpose])
    except BadData:
        user_id = address = state = None
    user = user_id and svcs.flask.get(Session).get(User, user_id, with_for_update=lock, populate_existing=True)
    if not user or state != state_of(user):
        abort(403, "This link has been used, has expired, or is incomplete. Please ask for a new one.")
    return user, address


def state_of(user: User) -> str:
    """A digest of what the use of a link changes, and what ends older links when it changes otherwise."""
    return digest((user.password_hash, user.email, user.email_confirmed))[:32]


def _serializer(purpose: str) -> URLSafeTimedSerializer:
    keys = [*reversed(current_app.config["SECRET_KEY_FALLBACKS"]), current_app.config["SECRET_KEY"]]
    digest_method = {"digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(keys, salt=f"app.accounts.{purpose}", signer_kwargs=digest_method)
