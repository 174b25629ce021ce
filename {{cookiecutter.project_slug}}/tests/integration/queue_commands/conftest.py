"""What the tests of the queue's commands share."""

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from click.testing import CliRunner, Result
from flask import Flask

from app.queue_commands import queue
from database.broker import TableBroker

Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask) -> Run:
    """Runs one of the commands as `main.py` does."""

    def run(*arguments: str, **options: Any) -> Result:
        with app.app_context():
            return CliRunner().invoke(queue, arguments, **options)

    return run


@pytest.fixture
def output(run: Run) -> Callable[..., str]:
    """What a command prints that works, and has nothing to say beside it."""

    def output(*arguments: str, **options: Any) -> str:
        result = run(*arguments, **options)
        assert (result.exit_code, result.stderr, result.exception) == (0, "", None)
        return result.stdout

    return output


@pytest.fixture
def refusal(run: Run) -> Callable[..., str]:
    """The one line of a command that refuses what it is told."""

    def refusal(code: int, *arguments: str, **options: Any) -> str:
        result = run(*arguments, **options)
        assert isinstance(result.exception, SystemExit)
        (line,) = result.stderr.splitlines()
        assert (result.exit_code, result.stdout) == (code, "")
        return line

    return refusal


@pytest.fixture
def broker(app: Flask) -> TableBroker:
    broker = dramatiq.get_broker()
    assert isinstance(broker, TableBroker)
    return broker
