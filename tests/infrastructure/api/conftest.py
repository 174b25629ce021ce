"""A client of the API."""

from typing import Any

import pytest
from flask import Flask

from app.accounts import User
from app.api.models import new_token
from app.services import transaction
from database import rate_limits


@pytest.fixture
def token(app: Flask, user: User) -> str:
    """The text of a token of ada's that writes."""
    with transaction(app):
        return new_token(user, "test", "write", 1)[1]


@pytest.fixture
def api(app: Flask, token: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client with that token, as often as it likes."""
    monkeypatch.setattr(rate_limits, "hit", lambda *_: 0.0)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client
