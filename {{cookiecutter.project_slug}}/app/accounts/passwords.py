"""Password hashes, after the OWASP Password Storage Cheat Sheet."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from werkzeug.exceptions import ServiceUnavailable

from app.accounts.models import User
from config.settings import Argon2

# Characters at each end of a password that are looked at for common ones.
JUDGED = 16
# Passwords that a process hashes at the same time; each takes all that a processor has.
turns = threading.BoundedSemaphore(2)


def hash_password(password: str, cost: Argon2) -> str:
    with _turn():
        return _hasher(cost).hash(password)


def check_password(user: User | None, password: str, cost: Argon2) -> bool:
    """Whether the password is the user's.

    It takes as long for an unknown user as for a known one, so that the time does not reveal which names exist.
    """
    hasher = _hasher(cost)
    with _turn():
        try:
            hasher.verify(user.password_hash if user else _unknown_users_hash(cost), password)
        except (VerificationError, InvalidHashError):
            return False
    return user is not None


def renew_hash(user: User, password: str, cost: Argon2) -> None:
    """Replace a hash that was made at another cost, when the password is at hand."""
    if _hasher(cost).check_needs_rehash(user.password_hash):
        user.password_hash = hash_password(password, cost)


def is_common(password: str, names: Sequence[str]) -> bool:
    """Whether what is left of a password without these names is one of those that are tried first."""
    # Its lists take a moment to load.
    from zxcvbn import zxcvbn  # type: ignore[import-untyped]

    for name in names:
        password = password.lower().replace(name.lower(), "")
    # Below a million guesses. Its work grows with the square of the length and faster, so only both ends are asked.
    return not password or all(zxcvbn(end)["score"] < 2 for end in (password[:JUDGED], password[-JUDGED:]))


@contextmanager
def _turn() -> Iterator[None]:
    """Answer 503 when all turns are taken: a queue would hold up every page."""
    if not turns.acquire(blocking=False):
        raise ServiceUnavailable("Many people log in right now. Please try again in a moment.", retry_after=5)
    try:
        yield
    finally:
        turns.release()


@cache
def _hasher(cost: Argon2) -> PasswordHasher:
    return PasswordHasher(time_cost=cost.time_cost, memory_cost=cost.memory_cost, parallelism=cost.parallelism)


@cache
def _unknown_users_hash(cost: Argon2) -> str:
    return _hasher(cost).hash("no account has this hash")
