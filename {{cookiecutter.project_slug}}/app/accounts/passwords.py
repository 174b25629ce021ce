"""Password hashes, after the OWASP Password Storage Cheat Sheet."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.accounts.models import User
from config.settings import Argon2


def hash_password(password: str, cost: Argon2) -> str:
    return _hasher(cost).hash(password)


def check_password(user: User | None, password: str, cost: Argon2) -> bool:
    """Whether the password is the user's.

    It takes as long for an unknown user as for a known one, so that the time does not reveal which names exist. A hash
    that was made at another cost is replaced.
    """
    hasher = _hasher(cost)
    try:
        hasher.verify(user.password_hash if user else _unknown_users_hash(cost), password)
    except (VerificationError, InvalidHashError):
        return False
    if user and hasher.check_needs_rehash(user.password_hash):
        user.password_hash = hasher.hash(password)
    return user is not None


@cache
def _hasher(cost: Argon2) -> PasswordHasher:
    return PasswordHasher(time_cost=cost.time_cost, memory_cost=cost.memory_cost, parallelism=cost.parallelism)


@cache
def _unknown_users_hash(cost: Argon2) -> str:
    return _hasher(cost).hash("no account has this hash")
