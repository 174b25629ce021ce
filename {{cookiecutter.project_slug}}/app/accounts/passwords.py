"""Password hashes, after the OWASP Password Storage Cheat Sheet."""

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.accounts.models import User
from config.settings import Argon2


def hash_password(password: str, cost: Argon2) -> str:
    """An argon2id hash with its salt and parameters."""
    return _hasher(cost).hash(password)


def check_password(user: User | None, password: str, cost: Argon2) -> bool:
    """Whether the password is the user's. It takes as long for nobody as for somebody.

    A hash of another cost than today's is renewed in the user's row.
    """
    hasher = _hasher(cost)
    try:
        hasher.verify(user.password_hash if user else _nobody(cost), password)
    except (VerificationError, InvalidHashError):
        return False
    if user and hasher.check_needs_rehash(user.password_hash):
        user.password_hash = hasher.hash(password)
    return user is not None


@cache
def _hasher(cost: Argon2) -> PasswordHasher:
    return PasswordHasher(time_cost=cost.time_cost, memory_cost=cost.memory_cost, parallelism=cost.parallelism)


@cache
def _nobody(cost: Argon2) -> str:
    return _hasher(cost).hash("no account has this hash")
