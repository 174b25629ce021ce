"""What administrators do on their page, and the trace it leaves."""

from collections.abc import Callable
from typing import Any, cast

import dramatiq
import pytest
from flask import Flask, request
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.ops.jobs import remove_expired
from app.services import transaction
from database import queue_admin
from database.broker import TableBroker
from database.messages import ClaimedMessage
from database.schedule import SCHEDULES, ScheduleSlot


@pytest.fixture
def act(admin: Any, caplog: pytest.LogCaptureFixture) -> Callable[[str], tuple[str, list[dict[str, Any]]]]:
    """Presses a button; returns the message on the page that follows, and the lines for the audit log."""

    def act(path: str) -> tuple[str, list[dict[str, Any]]]:
        caplog.clear()
        response = admin.submit(path, page="/ops")
        assert (response.status_code, response.location) == (302, "/ops")
        lines = [dict(cast(Any, record.msg)) for record in caplog.records if record.name == "app.audit"]
        for line in lines:
            common = {name: line.pop(name) for name in ("user", "request_id", "level", "logger")}
            identity = response.headers["X-Request-ID"]
            assert common == {"user": "ada", "request_id": identity, "level": "info", "logger": "app.audit"}
            assert line.pop("timestamp")
        _, _, rest = admin.get("/ops").text.partition('<div class="messages" role="status">')
        return rest.partition("</div>")[0].replace("<p>", "").replace("</p>", "").strip(), lines

    return act


Act = Callable[[str], tuple[str, list[dict[str, Any]]]]


def send(broker: TableBroker, delay: int | None = None) -> str:
    message = dramatiq.Message[None](queue_name="default", actor_name="job", args=(), kwargs={}, options={})
    return broker.enqueue(message, delay=delay).message_id


def claim(broker: TableBroker) -> ClaimedMessage:
    [message] = broker.table.claim("default", 1)[0]
    return message


def fail(broker: TableBroker) -> str:
    send(broker)
    message = claim(broker)
    broker.table.set_aside(message, "ValueError")
    return message.message_id


def states(broker: TableBroker) -> dict[str, str]:
    return {found.id: found.state for found in queue_admin.find_all(broker, ["default"], queue_admin.STATES, limit=9)}


GONE = "This job is gone: it has been cancelled, or has run meanwhile."


def test_a_failed_job_waits_again(act: Act, broker: TableBroker) -> None:
    failed, other = fail(broker), fail(broker)
    message, audit = act(f"/ops/jobs/{failed}/retry")
    assert message == "job waits again."
    assert audit == [{"event": "queue.retry", "message_id": failed, "job": "job"}]
    assert states(broker) == {failed: "waiting", other: "failed"}


def test_all_failed_jobs_wait_again(act: Act, broker: TableBroker) -> None:
    failed = [fail(broker), fail(broker)]
    message, audit = act("/ops/jobs/retry")
    assert message == "Jobs that wait again: 2."
    assert audit == [{"event": "queue.retry_all", "jobs": 2}]
    assert states(broker) == dict.fromkeys(failed, "waiting")
    assert act("/ops/jobs/retry") == ("No job has failed; nothing was changed.", [])


def test_a_job_that_is_not_failed_any_more_is_left_alone(act: Act, broker: TableBroker) -> None:
    sent = send(broker)
    assert act(f"/ops/jobs/{sent}/retry") == ("job is waiting, not failed; nothing was changed.", [])
    claim(broker)
    assert act(f"/ops/jobs/{sent}/retry") == ("job is running, not failed; nothing was changed.", [])
    assert states(broker) == {sent: "running"}


@pytest.mark.parametrize("delay", [None, 3_600_000])
def test_a_job_that_waits_is_cancelled(act: Act, broker: TableBroker, delay: int | None) -> None:
    sent, other = send(broker, delay), send(broker)
    message, audit = act(f"/ops/jobs/{sent}/cancel")
    assert message == "job is cancelled."
    assert audit == [{"event": "queue.cancel", "message_id": sent, "job": "job"}]
    assert states(broker) == {other: "waiting"}


def test_a_job_that_runs_or_has_failed_is_not_cancelled(act: Act, broker: TableBroker) -> None:
    failed, running = fail(broker), send(broker)
    claim(broker)
    rest = "; only what waits or is delayed can be cancelled."
    assert act(f"/ops/jobs/{running}/cancel") == (f"job is running{rest}", [])
    assert act(f"/ops/jobs/{failed}/cancel") == (f"job is failed{rest}", [])
    assert states(broker) == {running: "running", failed: "failed"}


def test_a_job_that_a_worker_takes_at_this_moment_is_not_cancelled(
    act: Act, broker: TableBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = send(broker)
    find = queue_admin.find

    def find_and_lose(*arguments: Any) -> Any:
        found = find(*arguments)
        claim(broker)
        return found

    monkeypatch.setattr(queue_admin, "find", find_and_lose)
    assert act(f"/ops/jobs/{sent}/cancel") == ("job was taken by a worker at this moment, and is not cancelled.", [])
    assert states(broker) == {sent: "running"}


@pytest.mark.parametrize("action", ["retry", "cancel"])
def test_a_job_that_is_gone_is_told(act: Act, broker: TableBroker, action: str) -> None:
    assert act(f"/ops/jobs/00000000-0000-0000-0000-000000000000/{action}") == (GONE, [])


def test_the_beginning_of_an_id_names_no_job(act: Act, broker: TableBroker) -> None:
    sent = send(broker)
    assert act(f"/ops/jobs/{sent[:8]}/cancel") == (GONE, [])
    assert states(broker) == {sent: "waiting"}


def test_a_schedule_runs_now(act: Act, app: Flask, work: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    name = remove_expired.actor_name
    message, [audit] = act(f"/ops/schedules/{name}/run")
    assert message == f"{name} is sent for now."
    slot = audit.pop("slot")
    assert audit == {"event": "schedule.run", "schedule": name}
    assert work() == 0
    with transaction(app) as session:
        [row] = session.query(ScheduleSlot).all()
        assert (row.schedule, row.slot.isoformat(), row.outcome) == (name, slot, "done")
    monkeypatch.setattr("app.ops.dashboard.utc_now", lambda: row.slot)
    assert act(f"/ops/schedules/{name}/run") == (f"{name} was sent a moment ago already.", [])
    assert name in SCHEDULES


def test_what_could_not_be_stored_leaves_no_trace(
    admin: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Session.commit

    def refuse(session: Session) -> None:
        if request.method == "POST":
            raise OperationalError("COMMIT", None, Exception("the disk is full"))
        commit(session)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "commit", refuse)
        assert admin.submit(f"/ops/schedules/{remove_expired.actor_name}/run", page="/ops").status_code == 503
    assert [record for record in caplog.records if record.name == "app.audit"] == []
    assert "is sent for now" not in admin.get("/ops").text


def test_an_unknown_schedule_is_not_found(admin: Any) -> None:
    assert admin.submit("/ops/schedules/nope/run", page="/ops").status_code == 404
