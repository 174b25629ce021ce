"""What the tests of the page of administrators share."""

import pytest
from flask import Flask

from app.accounts import User
from app.services import transaction
from tests.conftest import Browser


@pytest.fixture
def admin(logged_in: Browser, app: Flask, user: User) -> Browser:
    """A browser that ada is logged in on, who is an administrator."""
    with transaction(app) as session:
        session.get_one(User, user.id).is_admin = True
    return logged_in
