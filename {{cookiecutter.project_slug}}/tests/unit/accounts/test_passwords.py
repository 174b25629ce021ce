"""Password hashes, and the time that an unknown name takes."""

import pytest
from argon2 import PasswordHasher

from app.accounts import User
from app.accounts.passwords import check_password, hash_password, renew_hash
from config.settings import Argon2

CHEAP = Argon2(time_cost=1, memory_cost=64, parallelism=1)
DEARER = Argon2(time_cost=2, memory_cost=128, parallelism=1)
PASSWORD = "correct horse battery"


@pytest.fixture
def user() -> User:
    return User(username="ada", password_hash=hash_password(PASSWORD, CHEAP))


def test_a_hash_is_argon2id_with_the_given_cost_and_a_salt() -> None:
    assert hash_password(PASSWORD, DEARER).startswith("$argon2id$v=19$m=128,t=2,p=1$")
    assert hash_password(PASSWORD, CHEAP) != hash_password(PASSWORD, CHEAP)


def test_only_the_password_itself_is_right(user: User) -> None:
    assert check_password(user, PASSWORD, CHEAP)
    assert not any(check_password(user, wrong, CHEAP) for wrong in (PASSWORD.upper(), PASSWORD + " ", ""))
    assert not check_password(User(username="ada", password_hash="!"), PASSWORD, CHEAP)


@pytest.mark.parametrize(("cost", "renewed"), [(DEARER, True), (CHEAP, False)])
def test_a_hash_is_renewed_when_the_cost_has_changed(user: User, cost: Argon2, renewed: bool) -> None:
    before = user.password_hash
    renew_hash(user, PASSWORD, cost)
    assert (user.password_hash != before) is renewed
    assert check_password(user, PASSWORD, cost)


def test_an_unknown_user_costs_a_verification_too(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, password_hash: str, password: str) -> bool:
        verified.append(password_hash)
        return verify(self, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    assert not check_password(None, PASSWORD, CHEAP)
    assert not check_password(user, "wrong", CHEAP)
    unknown, known = verified
    assert unknown.split("$")[:4] == known.split("$")[:4]
