"""What administrators do on their page, and the trace it leaves."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from app.services import transaction
from database import queue_admin
from database.schedule import ScheduleSlot

FIELDS = ("user", "message_id", "jobs", "schedule", "slot")
RUN = "/ops/schedules/remove_expired/run"
Act = Callable[[str], tuple[str, list[tuple[object, ...]]]]


@pytest.fixture
def act(admin: Any, caplog: pytest.LogCaptureFixture) -> Act:
    """Presses a button; returns the message on the page that follows, and the lines for the audit log."""

    def act(path: str) -> tuple[str, list[tuple[object, ...]]]:
        caplog.clear()
        assert admin.submit(path, page="/ops").location == "/ops"
        records = [record for record in caplog.records if record.name == "app.audit"]
        lines = [(record.msg, *(vars(record)[name] for name in FIELDS if name in vars(record))) for record in records]
        _, _, rest = admin.get("/ops").text.partition('<div class="messages" role="status">')
        return rest.partition("</div>")[0].replace("<p>", "").replace("</p>", "").strip(), lines

    return act


def states(app: Flask) -> dict[str, str]:
    with transaction(app) as session:
        return {row.message_id: state for row, state in queue_admin.listed(session, None, 9)}


def test_a_failed_job_waits_again(act: Act, app: Flask, fragile: Any, work: Callable[[], int]) -> None:
    failed, other = (fragile.send("broken").message_id for _ in range(2))
    assert work() == 2
    assert act(f"/ops/jobs/{failed}/retry") == ("Jobs that wait again: 1.", [("queue.retry", "ada", failed, 1)])
    assert states(app) == {failed: "waiting", other: "failed"}


def test_all_failed_jobs_wait_again(act: Act, app: Flask, fragile: Any, work: Callable[[], int]) -> None:
    failed = [fragile.send("broken").message_id for _ in range(2)]
    assert work() == 2
    assert act("/ops/jobs/retry") == ("Jobs that wait again: 2.", [("queue.retry", "ada", "all", 2)])
    assert states(app) == dict.fromkeys(failed, "waiting")
    assert act("/ops/jobs/retry") == ("Nothing was changed: no such job has failed.", [])


@pytest.mark.parametrize("options", [{}, {"delay": 3_600_000}])
def test_a_job_that_waits_is_cancelled(act: Act, app: Flask, fragile: Any, options: dict[str, int]) -> None:
    sent, other = (fragile.send_with_options(**options).message_id for _ in range(2))
    assert act(f"/ops/jobs/{sent}/cancel") == ("The job is removed.", [("queue.cancel", "ada", sent)])
    assert list(states(app)) == [other]


def test_a_job_that_runs_is_left_alone(act: Act, app: Flask, running: str) -> None:
    assert act(f"/ops/jobs/{running}/cancel") == ("Nothing was changed: this job runs now, or is gone.", [])
    assert act(f"/ops/jobs/{running}/retry") == ("Nothing was changed: no such job has failed.", [])
    assert states(app) == {running: "running"}


def test_what_is_not_there_is_not_found_and_the_beginning_of_an_id_names_no_job(
    admin: Any, app: Flask, fragile: Any
) -> None:
    sent = fragile.send().message_id
    assert admin.submit("/ops/schedules/nope/run", page="/ops").status_code == 404
    assert admin.submit(f"/ops/jobs/{sent[:8]}/cancel", page="/ops").status_code == 404
    assert admin.submit(f"/ops/jobs/{uuid.uuid4()}/cancel", page="/ops").status_code == 302
    assert states(app) == {sent: "waiting"}


def test_a_schedule_runs_now(act: Act, app: Flask, work: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    message, [line] = act(RUN)
    assert message == "The job remove_expired is sent."
    assert work() == 0
    with transaction(app) as session:
        row = session.scalars(select(ScheduleSlot)).one()
    assert (row.schedule, row.outcome) == ("remove_expired", "done")
    assert line == ("schedule.run", "ada", "remove_expired", row.slot.isoformat())
    monkeypatch.setattr("app.ops.dashboard.utc_now", lambda: row.slot)
    assert act(RUN) == ("Nothing was changed: remove_expired was sent a moment ago.", [])


def test_what_could_not_be_stored_leaves_no_trace(
    admin: Any, caplog: pytest.LogCaptureFixture, commit_fails: AbstractContextManager[None]
) -> None:
    with commit_fails:
        assert admin.submit(RUN, page="/ops").status_code == 503
    assert [record for record in caplog.records if record.name == "app.audit"] == []
    assert 'role="status"' not in admin.get("/ops").text
