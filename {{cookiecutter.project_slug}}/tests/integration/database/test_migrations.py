"""The migrations of all features, together."""

from alembic import command
from flask import Flask
from sqlalchemy import Engine

from database.migrations import alembic_config, applied


def test_they_go_up_and_down_and_make_what_the_models_say(app: Flask, engine: Engine) -> None:
    config = alembic_config(engine)
    command.downgrade(config, "base")
    assert applied(engine) == set()
    command.upgrade(config, "heads")
    command.check(config)
