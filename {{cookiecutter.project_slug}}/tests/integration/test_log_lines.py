"""One record a line, with what is needed to find it again and without what nobody may read."""

import json
import logging
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import structlog
import svcs
from flask import Flask
from flask_login import current_user
from sqlalchemy import Engine, event

from app.extensions import csrf
from config import ConfigError, Settings
from tests.conftest import add_user, run_jobs

MakeApp = Callable[..., Flask]
JSON_LINES = {"APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "json"}


PEOPLE_LINES = {"APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "people"}


@pytest.fixture
def records(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The records logged so far, each from a line of its own."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


Records = Callable[[], list[dict[str, Any]]]


def test_production_logs_each_request_as_one_json_object(make_app: MakeApp, records: Records) -> None:
    response = make_app(APP_ENV="production").test_client().get("/profile/nobody")
    [record] = records()
    assert record.pop("milliseconds") > 0
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "request",
        "level": "info",
        "logger": "app.request",
        "method": "GET",
        "route": "/profile/<username>",
        "status": 404,
        "request_id": response.headers["X-Request-ID"],
    }


def test_health_checks_and_static_files_are_not_logged(make_app: MakeApp, records: Records) -> None:
    client = make_app(**JSON_LINES).test_client()
    for path in ("/livez", "/readyz", "/version", "/metrics", "/static/style.css"):
        client.get(path).close()
    assert records() == []


def test_what_a_request_logs_carries_its_id_and_nothing_of_another(make_app: MakeApp, records: Records) -> None:
    app = make_app(**JSON_LINES)

    @app.get("/log")
    def log() -> str:
        structlog.contextvars.bind_contextvars(order=1815)
        logging.getLogger("some.library").warning("hello %s", "world")
        return "logged"

    numbers = [app.test_client().get(path).headers["X-Request-ID"] for path in ("/log", "/login")]
    line, request, following = records()
    assert (line["event"], line["logger"], line["level"]) == ("hello world", "some.library", "warning")
    assert (line["request_id"], line["order"]) == (request["request_id"], request["order"]) == (numbers[0], 1815)
    assert following["request_id"] == numbers[1]
    assert "order" not in following


def test_a_refused_form_is_not_logged_under_the_request_before_it(make_app: MakeApp, records: Records) -> None:
    client = make_app(**JSON_LINES).test_client()
    numbers = [client.get("/login").headers["X-Request-ID"], client.post("/login").headers["X-Request-ID"]]
    assert [record["request_id"] for record in records()] == [numbers[0], numbers[1], numbers[1]]


def test_a_value_with_a_line_end_stays_one_record(make_app: MakeApp, records: Records) -> None:
    make_app(**JSON_LINES)
    forged = ["ada" + line_end + '{"event": "payment received"}' for line_end in ("\n", "\r\n", "\u2028", "\x85")]
    for name in forged:
        logging.getLogger("app").warning("user %s", name)
    assert [record["event"] for record in records()] == [f"user {name}" for name in forged]


@pytest.mark.parametrize("formatter", ["json", "people"])
def test_a_traceback_shows_the_way_and_no_values(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str], formatter: str
) -> None:
    app = make_app(APP_LOGGING__HANDLERS__CONSOLE__FORMATTER=formatter)
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/broken")
    def broken() -> str:
        password = "-".join(["correct", "horse"])
        raise ZeroDivisionError(len(password))

    number = app.test_client().get("/broken").headers["X-Request-ID"]
    logged = capsys.readouterr().err
    assert "ZeroDivisionError" in logged
    assert "test_log_lines.py" in logged
    assert number in logged
    assert "correct-horse" not in logged


def test_a_wrong_logging_file_is_named_with_the_reason(make_app: MakeApp) -> None:
    with pytest.raises(ConfigError, match=r"^config/logging.json: logging: Unknown level: 'LOUD'$"):
        make_app(APP_LOGGING__ROOT__LEVEL="LOUD")


SECRETS = ("hunter2", "hunter3", "hunter4", "hunter5", "hunter6", "hunter7")


def fail_with_a_secret() -> None:
    try:
        raise ConnectionError("postgresql://ada:hunter2@db:5432/app?password=hunter3")
    except ConnectionError:
        structlog.stdlib.get_logger("app").exception("no database")


SECRET_LINES: dict[str, Callable[[], Any]] = {
    "by name": lambda: structlog.stdlib.get_logger("app").warning("saved", password="hunter2", API_KEY="hunter3"),
    "inside": lambda: structlog.stdlib.get_logger("app").warning(
        "sent", headers={"Authorization": "Bearer hunter2", "list": [{"Set-Cookie": "a=hunter3"}]}
    ),
    "in a URL": lambda: structlog.stdlib.get_logger("app").warning(
        "connect redis://:hunter2@cache:6379 and https://ada:hunter3@x.org/", to="amqp://a:hunter4@mq/"
    ),
    "in a message": lambda: logging.getLogger("library").warning("Authorization: Bearer hunter2, token=hunter3&x=1"),
    "in arguments": lambda: logging.getLogger("library").warning(
        "sent %s and %s", {"password": "hunter2", "user": "ada"}, json.dumps({"client_secret": "hunter3"})
    ),
    "in keyword arguments": lambda: logging.getLogger("library").warning("job(1, password='hunter2 hunter3')"),
    "in JSON in JSON": lambda: logging.getLogger("library").warning(json.dumps(json.dumps({"password": "hunter2"}))),
    "in a list": lambda: logging.getLogger("library").warning(str({"passwords": ["hunter2", "hunter3"], "of": "ada"})),
    "long": lambda: logging.getLogger("library").warning('private_key="' + "hunter2 " * 700 + '"'),
    "cut off": lambda: logging.getLogger("library").warning("secret='hunter2 " + "hunter3 " * 700),
    "in a digest": lambda: logging.getLogger("library").warning(
        'Authorization: Digest username="ada", response="hunter2"'
    ),
    "in an error": fail_with_a_secret,
}


@pytest.mark.parametrize("formatter", ["json", "people"])
@pytest.mark.parametrize("line", SECRET_LINES)
def test_a_secret_is_never_logged(
    make_app: MakeApp, settings: Settings, capsys: pytest.CaptureFixture[str], formatter: str, line: str
) -> None:
    make_app(APP_LOGGING__HANDLERS__CONSOLE__FORMATTER=formatter)
    SECRET_LINES[line]()
    logged = capsys.readouterr().err
    assert "***" in logged
    assert not any(secret in logged for secret in SECRETS)
    if line == "in an error":
        assert not any(secret in settings.app_dir.error_log.read_text() for secret in SECRETS)


@pytest.mark.parametrize("part", ["a", "token", "://a:", "token=", "token='", "password=\\\\", "cookie: "])
def test_a_long_text_keeps_nobody_busy(make_app: MakeApp, records: Records, part: str) -> None:
    make_app(**JSON_LINES)
    started = time.process_time()
    structlog.stdlib.get_logger("app").warning(part * (200_000 // len(part)))
    assert time.process_time() - started < 2
    assert len(records()) == 1


def test_what_is_no_secret_stays(make_app: MakeApp, records: Records) -> None:
    make_app(**JSON_LINES)
    event = "GET https://example.org/a?page=2 took 10:30, order: 5"
    structlog.stdlib.get_logger("app").warning(event, route="/posts/<id>", count=3, names=["ada"], key="import 7")
    [record] = records()
    assert record["event"] == event
    assert (record["route"], record["count"], record["names"], record["key"]) == ("/posts/<id>", 3, ["ada"], "import 7")


@pytest.mark.parametrize("letter", ["\n", "\r\n", "\x1b[2J", "\x85", "\u2028", "\x9b31m", "\u202e"])
def test_nobody_can_forge_a_line_for_people(make_app: MakeApp, capsys: pytest.CaptureFixture[str], letter: str) -> None:
    make_app(**PEOPLE_LINES)
    forged = f"ada{letter}2026-01-01T00:00:00Z [info] payment received"
    logging.getLogger("library").warning("user %s", forged)
    structlog.stdlib.get_logger("app").warning("hello", name=forged, both=[forged], **{forged: 1})
    structlog.stdlib.get_logger("app").warning(forged)
    logged = capsys.readouterr().err
    assert len(logged.splitlines()) == 3
    assert letter not in logged.replace("\n", "")


def test_a_traceback_for_people_cannot_begin_a_line(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    make_app(**PEOPLE_LINES)
    try:
        raise ValueError("no\n2026-01-01T00:00:00Z [info] payment received\x1b[2J")
    except ValueError:
        logging.getLogger("app").exception("broken")
    first, *others = capsys.readouterr().err.splitlines()
    assert "broken" in first
    assert others
    assert all(line.startswith("    ") for line in others)
    assert not any("\x1b" in line for line in others)


def test_a_value_that_json_does_not_know_is_logged_all_the_same(make_app: MakeApp, records: Records) -> None:
    make_app(**JSON_LINES)
    for value in ({1, 2}, object, {("a", "b"): 1}, "\ud800", b"\xff", float("nan")):
        structlog.stdlib.get_logger("app").warning("odd", value=value)
    assert len(records()) == 6


def test_a_request_line_names_its_user_and_asks_nobody_for_it(
    make_app: MakeApp, settings: Settings, records: Records
) -> None:
    app = make_app(**JSON_LINES)
    number = add_user(app, settings, "ada").id
    statements: list[str] = []
    with app.app_context():
        event.listen(
            svcs.flask.get(Engine), "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
        )

    @app.get("/who")
    def who() -> str:
        return str(current_user.username)

    @app.get("/nobody-asks")
    def nobody_asks() -> str:
        return "hello"

    client: Any = app.test_client()
    client.log_in("ada")
    statements.clear()
    client.get("/who")
    client.get("/nobody-asks")
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1
    *_, asked, not_asked = records()
    assert asked["user_id"] == number
    assert "user_id" not in not_asked


def test_a_jobs_job_belongs_to_the_request_and_its_user(
    make_app: MakeApp, settings: Settings, records: Records
) -> None:
    app = make_app(**JSON_LINES)
    number = add_user(app, settings, "ada").id

    @dramatiq.actor
    def second() -> None: ...

    @dramatiq.actor
    def first() -> None:
        second.send()

    @app.post("/send")
    @csrf.exempt
    def send() -> str:
        assert current_user.is_authenticated
        first.send()
        return "sent"

    client: Any = app.test_client()
    client.log_in("ada")
    sent = client.post("/send")
    first.send()
    try:
        run_jobs()
    finally:
        for actor in (first, second):
            del dramatiq.get_broker().actors[actor.actor_name]
    done = [record for record in records() if record["event"] == "job done"]
    assert len(done) == 4
    assert all(record["milliseconds"] >= 0 and record["attempt"] == 1 for record in done)
    by_request = [(record["job"], record.get("user_id")) for record in done if "request_id" in record]
    assert by_request == [("first", number), ("second", number)]
    assert {record.get("request_id") for record in done} == {sent.headers["X-Request-ID"], None}
    assert [record["job"] for record in done if "user_id" not in record] == ["first", "second"]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_errors_are_also_kept_in_the_app_folder(make_app: MakeApp, settings: Settings) -> None:
    make_app(**PEOPLE_LINES)
    logging.getLogger("library").warning("only a warning")
    structlog.stdlib.get_logger("app").error("broken", order=1815)
    logging.getLogger("library").critical("worse")
    found = lines_of(settings.app_dir.error_log)
    assert [(line["event"], line["level"]) for line in found] == [("broken", "error"), ("worse", "critical")]
    assert found[0]["order"] == 1815
    assert stat.S_IMODE(settings.app_dir.error_log.stat().st_mode) == 0o640


def test_what_administrators_do_is_kept_too(make_app: MakeApp, settings: Settings, records: Records) -> None:
    make_app(**JSON_LINES)
    structlog.stdlib.get_logger("app.audit").info("job retried", user_id=7, message_id="4711")
    structlog.stdlib.get_logger("app").info("nothing to keep")
    [kept] = lines_of(settings.app_dir.audit_log)
    assert (kept["event"], kept["user_id"], kept["message_id"]) == ("job retried", 7, "4711")
    assert [record["event"] for record in records()] == ["job retried", "nothing to keep"]


def test_a_log_file_may_be_renamed_and_its_folder_removed(make_app: MakeApp, settings: Settings) -> None:
    make_app(**JSON_LINES)
    log, moved = settings.app_dir.error_log, settings.app_dir.path / "moved"
    logging.getLogger("app").error("first")
    log.rename(moved)
    logging.getLogger("app").error("second")
    assert [line["event"] for line in [*lines_of(moved), *lines_of(log)]] == ["first", "second"]
    log.unlink()
    settings.app_dir.logs.rmdir()
    logging.getLogger("app").error("third")
    assert [line["event"] for line in lines_of(log)] == ["third"]


def test_a_log_file_that_cannot_be_written_is_one_line(make_app: MakeApp, settings: Settings, records: Records) -> None:
    make_app(**JSON_LINES)
    settings.app_dir.logs.touch()
    for number in range(3):
        logging.getLogger("app").error("broken %d", number)
    told, *others = sorted(records(), key=lambda record: str(record["level"]), reverse=True)
    assert told["event"] == f"{settings.app_dir.error_log}: cannot be written: File exists"
    assert [record["event"] for record in others] == ["broken 0", "broken 1", "broken 2"]
    settings.app_dir.logs.unlink()
    logging.getLogger("app").error("well again")
    assert [line["event"] for line in lines_of(settings.app_dir.error_log)] == ["well again"]


def test_a_link_does_not_lead_the_log_elsewhere(make_app: MakeApp, settings: Settings, records: Records) -> None:
    make_app(**JSON_LINES)
    settings.app_dir.logs.mkdir()
    elsewhere = settings.app_dir.path / "elsewhere"
    settings.app_dir.error_log.symlink_to(elsewhere)
    logging.getLogger("app").error("broken")
    assert not elsewhere.exists()
    assert "cannot be written" in str(records())


LINES, WRITERS, LIMIT = 1000, 4, 2_000


WRITE = f"""
import logging, sys
from app.logs import SharedFile, json_formatter
handler = SharedFile(sys.argv[1], limit={LIMIT})
handler.setFormatter(json_formatter())
print("ready", flush=True)
sys.stdin.readline()
for number in range({LINES}):
    handler.handle(logging.LogRecord("app", logging.ERROR, "", 0, f"{{sys.argv[2]}} {{number}}", None, None))
"""


def test_several_processes_write_one_error_log_that_stays_small(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "errors.jsonl"
    command = [sys.executable, "-c", WRITE, str(path)]
    with ExitStack() as stack:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": settings.root}
        writers: list[Any] = [
            stack.enter_context(subprocess.Popen([*command, str(number)], **pipes)) for number in range(WRITERS)
        ]
        # All at once.
        for writer in writers:
            writer.stdout.readline()
        for writer in writers:
            writer.stdin.close()
        assert [writer.wait(20) for writer in writers] == [0] * WRITERS
    older = path.with_name("errors.1.jsonl")
    assert sorted(path.parent.iterdir()) == [older, path]
    assert all(0 < file.stat().st_size <= LIMIT for file in (path, older))
    kept: dict[str, list[int]] = {}
    for line in [*lines_of(older), *lines_of(path)]:
        name, number = line["event"].split()
        kept.setdefault(name, []).append(int(number))
    # The last ones of each, without a gap and in their order: what was dropped is old.
    for name, numbers in kept.items():
        assert numbers == list(range(numbers[0], LINES)), name


def test_a_service_that_is_not_ready_is_one_line_and_not_one_a_probe(make_app: MakeApp, records: Records) -> None:
    app = make_app(**JSON_LINES)
    failures: list[Exception] = [OSError("redis://:hunter2@cache is down")] * 3

    def ping(_broker: object) -> None:
        if failures:
            raise failures.pop()

    with app.app_context():
        broker: object = svcs.flask.get_abstract(dramatiq.Broker)
    svcs.flask.register_value(app, dramatiq.Broker, broker, ping=ping)
    client = app.test_client()
    assert [client.get("/readyz").status_code for _ in range(5)] == [503, 503, 503, 200, 200]
    assert [(record["level"], record["event"]) for record in records()] == [
        ("error", "not ready: queue: OSError: redis://:***@cache is down"),
        ("info", "ready again: queue"),
    ]
