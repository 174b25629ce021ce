"""The commands of `main.py queue`, with the queue in SQLite."""

import json
import os
import re
import sys
import textwrap
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import dramatiq
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import Engine, event, select, update

from app.queue_commands import queue
from database import queue_admin, sessions
from database.broker import TableBroker
from database.messages import DEAD, READY, SUSPECT, ClaimedMessage, QueueMessage
from tests.conftest import without_seconds

Run = Callable[..., Result]
Text = Callable[..., str]
Work = Callable[[], int]
ERROR = 'Traceback (most recent call last):\n  File "a.py", line 1, in job\nValueError: no such thing\n'


def send(broker: TableBroker, *args: Any, queue: str = "default", delay: int | None = None, **options: Any) -> str:
    message = dramatiq.Message[None](queue_name=queue, actor_name="job", args=args, kwargs={}, options=options)
    return broker.enqueue(message, delay=delay).message_id


def claim(broker: TableBroker, queue: str = "default", limit: int = 1) -> list[ClaimedMessage]:
    messages, _ = broker.table.claim(queue, limit)
    assert len(messages) == limit
    return messages


def fail(broker: TableBroker, *args: Any, queue: str = "default", error: str = ERROR, **options: Any) -> str:
    """Send a message that fails; the queue has to be empty."""
    send(broker, *args, queue=queue, **options)
    (message,) = claim(broker, queue)
    assert broker.table.set_aside(message, error) == 1
    return message.message_id


def change(broker: TableBroker, sent: str, /, **values: Any) -> None:
    with sessions(broker.table.engine).begin() as session:
        session.execute(update(QueueMessage).where(QueueMessage.message_id == sent).values(**values))


def rows(broker: TableBroker) -> dict[str, QueueMessage]:
    with sessions(broker.table.engine, read_only=True)() as session:
        return {row.message_id: row for row in session.scalars(select(QueueMessage))}


@pytest.fixture
def one_of_each(broker: TableBroker) -> dict[str, str]:
    """The id of a message in each state."""
    failed = fail(broker)
    running = send(broker)
    claim(broker)
    return {
        "running": running,
        "failed": failed,
        "waiting": send(broker, 1, "ä", queue="default"),
        "delayed": send(broker, delay=3_600_000),
    }


def test_status_has_a_row_for_each_queue(broker: TableBroker, output: Text, one_of_each: dict[str, str]) -> None:
    fail(broker, queue="left_over")
    broker.declare_queue("idle")
    change(broker, one_of_each["waiting"], due=QueueMessage.due - 130)
    assert output("status").splitlines() == [
        "QUEUE      WAITING  DELAYED  RUNNING  FAILED  OLDEST WAITS SINCE",
        "default    1        1        1        1       2 min ago",
        "idle       0        0        0        0       -",
        "left_over  0        0        0        1       -",
    ]
    default, idle, _ = json.loads(output("status", "--json"))
    oldest = datetime.fromisoformat(default.pop("oldest"))
    assert default == {"queue": "default", "waiting": 1, "delayed": 1, "running": 1, "failed": 1}
    assert oldest.utcoffset() == timedelta(0)
    assert timedelta(minutes=2) < datetime.now(UTC) - oldest < timedelta(minutes=3)
    assert idle["oldest"] is None


def test_list_prints_aligned_lines_for_people(broker: TableBroker, output: Text, one_of_each: dict[str, str]) -> None:
    lines = re.sub(r"\bin [12]\d s", "soon", without_seconds(output("list"))).splitlines()
    assert re.split(" {2,}", lines[0]) == ["ID", "QUEUE", "JOB", "STATE", "WHEN", "TRIES", "WORKER OR ERROR"]
    found = [re.split(" {2,}", line) for line in lines[1:]]
    assert [line[:2] + line[3:6] for line in found] == [
        [one_of_each["running"][:8], "default", "running", "soon", "1"],
        [one_of_each["failed"][:8], "default", "failed", "now", "1"],
        [one_of_each["waiting"][:8], "default", "waiting", "now", "0"],
        [one_of_each["delayed"][:8], "default", "delayed", "in 59 min", "0"],
    ]
    assert broker.table.owner.startswith(found[0][6].rstrip("…"))
    for word in ("job", "running", "failed", "waiting", "delayed"):
        assert {line.index(word) for line in lines if word in line} <= {lines[0].index("JOB"), lines[0].index("STATE")}


def test_list_prints_all_fields_as_json(broker: TableBroker, output: Text) -> None:
    sent = send(broker, 1, "ä", request_id="abc")
    (message,) = json.loads(output("list", "--json"))
    when, at = (datetime.fromisoformat(message.pop(name)) for name in ("when", "sent"))
    assert message == {
        "id": sent,
        "queue": "default",
        "job": "job",
        "state": "waiting",
        "attempts": 0,
        "worker": None,
        "args": [1, "ä"],
        "kwargs": {},
        "options": {"request_id": "abc"},
        "error": None,
        "row": 1,
    }
    assert when.utcoffset() == at.utcoffset() == timedelta(0)
    assert json.loads(output("list", "--json", "--state", "failed")) == []


def test_list_narrows_to_a_queue_and_a_state(
    broker: TableBroker, output: Text, refusal: Text, one_of_each: dict[str, str]
) -> None:
    other = send(broker, queue="mail")

    def listed(*arguments: str) -> list[str]:
        return [message["id"] for message in json.loads(output("list", "--json", *arguments))]

    for state, sent in one_of_each.items():
        assert listed("--queue", "default", "--state", state) == [sent]
    assert listed("--queue", "mail") == [other]
    assert listed("--state", "waiting") == [one_of_each["waiting"], other]
    for command in ("list", "failed", "purge"):
        assert refusal(2, command, "--queue", "mai") == "Error: there is no queue 'mai', only default, mail"


def test_list_says_that_there_are_more_than_it_prints(broker: TableBroker, run: Run, output: Text) -> None:
    ids = [send(broker, number) for number in range(52)]
    result = run("list", "--json")
    assert [message["id"] for message in json.loads(result.stdout)] == ids[:50]
    assert result.stderr == "There are more than these 50; --limit prints more.\n"
    assert len(json.loads(output("list", "--json", "--limit", "52"))) == 52
    assert run("list", "--limit", "0").exit_code == 2


def test_what_is_overdue_waits(broker: TableBroker, output: Text) -> None:
    dead, delayed = send(broker), send(broker, delay=3_600_000)
    claim(broker)
    for message_id in (dead, delayed):
        change(broker, message_id, due=QueueMessage.due - 3700)
    assert output("list").count("waiting") == 2
    assert json.loads(output("status", "--json"))[0]["waiting"] == 2
    assert output("cancel", dead, delayed) == "jobs cancelled: 2\n"
    assert rows(broker) == {}


def test_failed_lists_the_last_one_first_with_the_last_line_of_its_error(broker: TableBroker, output: Text) -> None:
    first = fail(broker, error=ERROR)
    last = fail(broker, error="x" * 200)
    change(broker, first, due=QueueMessage.due - 3 * 86400)
    header, *lines = output("failed").splitlines()
    assert header.endswith("ERROR")
    assert [line[:8] for line in lines] == [last[:8], first[:8]]
    assert (len(lines[0]), lines[0][-2:]) == (100, "x…")
    assert lines[1].endswith("failed  3 d ago  1      ValueError: no such thing")
    assert [message["error"] for message in json.loads(output("failed", "--json"))] == ["x" * 200, ERROR]


def test_show_prints_everything_about_a_message(broker: TableBroker, output: Text) -> None:
    sent = fail(broker, 1, "ä", request_id="abc", retries=3, traceback="earlier", max_retries=3)
    text = output("show", sent[:8])
    assert (
        re.sub(r"\d{4}-\d\d-\S+:\S+", "TIME", text)
        == textwrap.dedent(f"""\
            id         {sent}
            queue      default
            job        job
            state      failed
            when       TIME (now)
            attempts   4
            sent       TIME (now)
            args       [1, "\\u00e4"]
            kwargs     {{}}
            options    {{"request_id": "abc", "max_retries": 3}}
            row        1

            """)
        + ERROR
    )
    shown = json.loads(output("show", sent, "--json"))
    assert [shown] == json.loads(output("list", "--json"))
    assert (shown["error"], shown["attempts"]) == (ERROR, 4)


def test_an_id_may_be_a_beginning_that_no_other_id_has(broker: TableBroker, output: Text, refusal: Text) -> None:
    ids = [send(broker), send(broker)]
    for number, sent in enumerate(ids):
        change(
            broker,
            sent,
            message_id=(new := f"12345678-{number}{uuid.uuid4()}"[:36]),
            payload=renamed(broker, sent, new),
        )
    assert output("show", "12345678-1").startswith("id         12345678-1")
    assert refusal(2, "show", "12345678") == "Error: 12345678: 2 messages begin so"
    assert refusal(2, "show", "12345678%") == "Error: 12345678%: there is no such message"
    assert refusal(2, "show", "1234567").startswith("Error: '1234567': expected at least the first 8 characters")
    for command in ("show", "retry", "cancel"):
        assert refusal(2, command, str(uuid.UUID(int=0))).endswith(": there is no such message")


def renamed(broker: TableBroker, sent: str, new: str) -> bytes:
    return rows(broker)[sent].payload.replace(sent.encode(), new.encode())


def test_a_failed_job_that_is_retried_has_all_its_attempts_again(
    app: Flask, broker: TableBroker, output: Text, work: Work
) -> None:
    tries: list[None] = []

    def fail_often() -> None:
        tries.append(None)
        if len(tries) < 6:
            raise ValueError("not yet")

    actor = dramatiq.actor(max_retries=2, min_backoff=1, max_backoff=1, max_age=3_600_000)(fail_often)
    try:
        sent = actor.send().message_id
        assert work() == 1
        (message,) = json.loads(output("failed", "--json"))
        assert (message["attempts"], len(tries)) == (3, 3)
        # Without a new time, Dramatiq would call it too old.
        old = dramatiq.Message[None].decode(rows(broker)[sent].payload)
        change(broker, sent, payload=old.copy(message_timestamp=1).encode())
        assert output("retry", sent[:8]) == "jobs that wait again: 1\n"
        row = rows(broker)[sent]
        assert (row.state, row.owner, row.deliveries, row.error) == (READY, None, 0, None)
        assert dramatiq.Message[None].decode(row.payload).options == {}
        assert work() == 0
        assert (len(tries), rows(broker)) == (6, {})
    finally:
        del broker.actors["fail_often"]


def test_retry_changes_nothing_if_one_of_the_ids_is_not_failed(
    broker: TableBroker, refusal: Text, one_of_each: dict[str, str]
) -> None:
    before = {sent: row.state for sent, row in rows(broker).items()}
    for state in ("waiting", "delayed", "running"):
        line = refusal(2, "retry", one_of_each["failed"], one_of_each[state])
        assert line == f"Error: {one_of_each[state]}: is {state}, not failed; nothing was changed"
    assert refusal(2, "retry", one_of_each["failed"], "0" * 8).endswith("no such message")
    assert {sent: row.state for sent, row in rows(broker).items()} == before


def test_retry_all_takes_all_failed_ones_or_those_of_a_queue(
    broker: TableBroker, run: Run, output: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_admin, "AT_ONCE", 2)
    for _ in range(5):
        fail(broker)
    mail = fail(broker, queue="mail")
    assert output("retry", "--all", "--queue", "mail") == "jobs that wait again: 1\n"
    assert [sent for sent, row in rows(broker).items() if row.state == READY] == [mail]
    assert output("retry", "--all") == "jobs that wait again: 5\n"
    assert output("retry", "--all") == "jobs that wait again: 0\n"
    for wrong in ([], [mail, "--all"], [mail, "--queue", "mail"]):
        result = run("retry", *wrong)
        assert result.exit_code == 2
        assert "give IDs, or --all" in result.stderr


def test_cancel_removes_what_waits_and_what_is_delayed(
    broker: TableBroker, output: Text, one_of_each: dict[str, str]
) -> None:
    suspect = send(broker)
    change(broker, suspect, state=SUSPECT)
    ids = [one_of_each["waiting"][:8], one_of_each["delayed"], suspect, suspect]
    assert output("cancel", *ids) == "jobs cancelled: 3\n"
    assert set(rows(broker)) == {one_of_each["running"], one_of_each["failed"]}


def test_cancel_refuses_what_runs_or_has_failed(broker: TableBroker, run: Run, one_of_each: dict[str, str]) -> None:
    for state in ("running", "failed"):
        result = run("cancel", one_of_each[state])
        line = f"{one_of_each[state]}: is {state}; only what waits or is delayed can be cancelled"
        assert (result.exit_code, result.stdout, result.stderr) == (1, "jobs cancelled: 0\n", f"Error: {line}\n")
    assert set(rows(broker)) == set(one_of_each.values())


def test_cancel_loses_against_a_claim_at_the_same_moment(
    broker: TableBroker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [send(broker), send(broker)]
    find = queue_admin.find

    def find_and_lose(broker: TableBroker, prefix: str) -> list[queue_admin.QueuedMessage]:
        found = find(broker, prefix)
        if prefix == ids[0]:
            claim(broker)
        return found

    monkeypatch.setattr(queue_admin, "find", find_and_lose)
    result = run("cancel", *ids)
    assert (result.exit_code, result.stdout) == (1, "jobs cancelled: 1\n")
    assert result.stderr == f"Error: {ids[0]}: was taken at this moment, and is not cancelled\n"
    assert set(rows(broker)) == {ids[0]}


def test_purge_drops_what_waits_and_lets_running_ones_go_on(
    broker: TableBroker, output: Text, one_of_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_admin, "AT_ONCE", 2)
    for number in range(5):
        send(broker, number)
    mail = send(broker, queue="mail")
    assert output("purge", "--queue", "default", "--yes") == "jobs dropped: 7\n"
    assert set(rows(broker)) == {one_of_each["running"], one_of_each["failed"], mail}
    assert output("purge", "--failed", "--yes") == "jobs dropped: 1\n"
    assert output("purge", "--yes") == "jobs dropped: 1\n"
    assert set(rows(broker)) == {one_of_each["running"]}


def test_a_running_job_outlives_a_purge_also_if_it_fails_or_its_worker_dies(broker: TableBroker, output: Text) -> None:
    send(broker, 1), send(broker, 2), send(broker, 3)
    done, failed, dead = claim(broker, limit=3)
    output("purge", "--yes")
    assert broker.table.finish(done) == 0
    assert broker.table.set_aside(failed, ERROR) == 1
    change(broker, dead.message_id, due=QueueMessage.due - 60)
    broker.table.held.clear()  # As in another process.
    assert claim(broker)[0].message_id == dead.message_id


def test_purge_asks_on_a_terminal_and_needs_a_yes_elsewhere(
    broker: TableBroker, run: Run, one_of_each: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("purge")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("Error: without a terminal to ask on, this needs --yes\n")
    # The runner puts a stream of its own in the place of standard input.
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    result = run("purge", input="n\n")
    assert (result.exit_code, len(rows(broker))) == (1, 4)
    assert "Drop 2 waiting and delayed jobs of default? [y/N]" in result.stderr
    result = run("purge", "--failed", input="y\n")
    assert (result.exit_code, result.stdout[-16:], len(rows(broker))) == (0, "jobs dropped: 1\n", 3)
    assert "Drop 1 failed jobs of default?" in result.stderr


def test_what_cannot_be_read_is_listed_and_retried_like_any_other(
    broker: TableBroker, output: Text, work: Work
) -> None:
    sent = send(broker)
    change(broker, sent, payload=b"{", state=DEAD, error="Failed to decode message.")
    (message,) = json.loads(output("list", "--json"))
    assert (message["id"], message["job"], message["sent"], message["args"]) == (sent, "job", None, [])
    assert "Failed to decode" in output("show", sent)
    assert output("retry", sent) == "jobs that wait again: 1\n"
    assert work() == 1


def test_arguments_and_errors_cannot_command_a_terminal(broker: TableBroker, output: Text) -> None:
    sent = fail(broker, "\x1b]0;owned\x07\ud800", error="ValueError: \x1b[2J\x9b\rnothing\x1b]0;owned\x07\u202e")
    for command in (["failed"], ["list"], ["show", sent]):
        assert not set(output(*command)) & set("\x1b\x07\x9b\r\ud800\u202e")
    assert json.loads(output("show", sent, "--json"))["args"] == ["\x1b]0;owned\x07\ud800"]


def test_colours_are_for_terminals(app: Flask, output: Text, one_of_each: dict[str, str]) -> None:
    assert "\x1b[" not in output("list")
    with app.app_context():
        coloured = CliRunner().invoke(queue, ["list"], color=True).stdout
    assert "\x1b[31mfailed" in coloured
    assert click.unstyle(coloured) == output("list")


def test_lines_fit_a_hundred_characters_however_long_names_are(broker: TableBroker, output: Text) -> None:
    name = "long_" * 18
    message = dramatiq.Message[None](queue_name=name, actor_name=name, args=(), kwargs={}, options={})
    broker.enqueue(message)
    claim(broker, name)
    for command in ("list", "failed", "status"):
        assert all(len(line) <= 100 for line in output(command).splitlines())


def test_output_ends_quietly_where_nobody_reads_on(
    app: Flask, one_of_each: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stdout = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stdout)
    for command in (["list"], ["status"], ["list", "--json"]):
        with app.app_context(), pytest.raises(SystemExit):
            queue(command)
    with suppress(BrokenPipeError):
        stdout.close()
    assert capsys.readouterr().err == ""


def test_a_database_that_fails_is_one_line(app: Flask, broker: TableBroker, refusal: Text, engine: Engine) -> None:
    with broker.table.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE queue_message RENAME TO other")
    for command in (["status"], ["list"], ["show", "0" * 8], ["retry", "--all"], ["purge", "--yes"]):
        assert refusal(1, *command) == "Error: database: no such table: queue_message"


def test_an_index_serves_every_statement_that_may_meet_a_million_rows(
    broker: TableBroker, output: Text, one_of_each: dict[str, str]
) -> None:
    statements = []

    @event.listens_for(broker.table.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    output("status"), output("list"), output("failed")
    event.remove(broker.table.engine, "before_cursor_execute", note)
    assert statements
    with broker.table.engine.connect() as connection:
        for statement, parameters in statements:
            steps = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            assert all("INDEX ix_queue_message_" in step for step in steps), (statement, steps)
