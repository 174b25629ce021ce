"""`main.py queue`: what operators see of the jobs, and do to them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from click.testing import Result
from flask import Flask

Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask) -> Run:
    """Runs `queue` with arguments."""
    return lambda *arguments, stdin="": app.test_cli_runner().invoke(args=["queue", *arguments], input=stdin)


@pytest.fixture
def failed(app: Flask, work: Callable[[], int]) -> Iterator[str]:
    """The id of a job that has failed, beside one that is delayed."""

    @dramatiq.actor(actor_name="test_divide", max_retries=0)
    def divide(number: int) -> None:
        raise ZeroDivisionError(number)

    message_id = divide.send(0).message_id
    assert work() == 1
    divide.send_with_options(args=(1,), delay=60_000)
    yield message_id
    del dramatiq.get_broker().actors["test_divide"]


def listed(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json", *arguments).output)
    return found


def test_jobs_are_counted_and_listed(run: Run, failed: str) -> None:
    counts = [line.split() for line in run("status").output.splitlines()]
    assert counts == [["QUEUE", "STATE", "JOBS"], ["default", "delayed", "1"], ["default", "failed", "1"]]
    found = [(row["job"], row["state"]) for row in listed(run)]
    assert found == [("test_divide(1)", "delayed"), ("test_divide(0)", "failed")]
    (row,) = listed(run, "--state", "failed")
    assert row["id"] == failed
    assert row["error"].startswith("Traceback")
    assert failed[:8] in run("list").output


def test_a_failed_job_is_tried_again(run: Run, failed: str) -> None:
    assert run("retry").exit_code == 2
    assert run("retry", "--all", failed).exit_code == 2
    assert run("retry", failed[:8]).output == "jobs that wait again: 1\n"
    assert run("retry", "--all").output == "jobs that wait again: 0\n"


def test_a_job_is_cancelled(run: Run, failed: str) -> None:
    (delayed,) = listed(run, "--state", "delayed")
    assert run("cancel", delayed["id"]).output == "jobs cancelled: 1\n"
    assert [row["id"] for row in listed(run)] == [failed]


def test_jobs_are_dropped_only_after_a_yes(run: Run, failed: str) -> None:
    assert run("purge", "failed", stdin="n\n").exit_code == 1
    assert run("purge", "failed", "--yes").output == "jobs dropped: 1\n"
    assert [row["state"] for row in listed(run)] == ["delayed"]
