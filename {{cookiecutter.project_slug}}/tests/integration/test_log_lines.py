"""One record a line, with what is needed to find it again, and without what nobody may read."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from app import logs
from config import ConfigError, Settings

MakeApp = Callable[..., Flask]
JSON = {"APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "json"}
PEOPLE = {"APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "people"}
LINE_ENDS = ["\n", "\r\n", "\x1b[2J", "\x85", "\u2028", "\x9b31m", "\u202e"]
library = logging.getLogger("library")


@pytest.fixture
def records(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The records logged so far, each from a line of its own."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


Records = Callable[[], list[dict[str, Any]]]


def test_production_logs_each_request_as_one_json_object(make_app: MakeApp, records: Records) -> None:
    response = make_app(APP_ENV="production").test_client().get("/profile/nobody")
    [record] = records()
    assert record.pop("milliseconds") > 0
    assert record.pop("timestamp")
    assert record == {
        "event": "request",
        "level": "info",
        "logger": "app.request",
        "method": "GET",
        "route": "/profile/<username>",
        "status": 404,
        "request_id": response.headers["X-Request-ID"],
    }


def test_people_get_a_line_with_the_same(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    number = make_app(**PEOPLE).test_client().get("/login").headers["X-Request-ID"]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"INFO    app.request: request request_id={number} method=GET route=/login status=200 ")


def test_metrics_and_static_files_are_not_logged(make_app: MakeApp, records: Records) -> None:
    client = make_app(**JSON).test_client()
    for path in ("/metrics", "/static/style.css"):
        client.get(path).close()
    assert records() == []


def test_what_a_request_logs_carries_its_id_and_nothing_of_another(make_app: MakeApp, records: Records) -> None:
    app = make_app(**JSON)

    @app.get("/log")
    def log() -> str:
        logs.context.set({**logs.context.get(), "order": 1815})
        library.warning("hello %s", "world", extra={"name_of": "ada"})
        return "logged"

    numbers = [app.test_client().get(path).headers["X-Request-ID"] for path in ("/log", "/login")]
    library.warning("afterwards")
    line, request, following, afterwards = records()
    assert (line["event"], line["logger"], line["level"]) == ("hello world", "library", "warning")
    assert (line["request_id"], line["order"], line["name_of"]) == (numbers[0], 1815, "ada")
    assert (request["request_id"], request["order"]) == (numbers[0], 1815)
    assert following["request_id"] == numbers[1]
    assert "order" not in following
    assert "request_id" not in afterwards


@pytest.mark.parametrize("letter", LINE_ENDS)
def test_nobody_can_forge_a_line(make_app: MakeApp, capsys: pytest.CaptureFixture[str], letter: str) -> None:
    forged = f"ada{letter}INFO    app: payment received"
    for formatter in (JSON, PEOPLE):
        make_app(**formatter)
        library.warning("user %s", forged)
        library.warning("hello", extra={"user": forged, "both": [forged], forged: 1})
        logged = capsys.readouterr().err
        assert len(logged.splitlines()) == 2
        assert letter not in logged.replace("\n", "")


@pytest.mark.parametrize("formatter", ["json", "people"])
def test_a_traceback_shows_the_way_and_no_values(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str], formatter: str
) -> None:
    app = make_app(APP_LOGGING__HANDLERS__CONSOLE__FORMATTER=formatter)
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/broken")
    def broken() -> str:
        password = "-".join(["correct", "horse"])
        raise ZeroDivisionError(f"{len(password)}\npayment received\x1b[2J")

    number = app.test_client().get("/broken").headers["X-Request-ID"]
    error, *more = capsys.readouterr().err.splitlines()
    traceback = error if formatter == "json" else "\n".join(more[:-1])
    assert number in error
    assert "ZeroDivisionError" in traceback
    assert "test_log_lines.py" in traceback
    assert "correct-horse" not in traceback
    assert "\x1b" not in traceback
    assert all(line.startswith("    ") for line in more[:-1])


@pytest.mark.parametrize("formatter", ["json", "people"])
def test_secrets_are_hidden_by_their_names_and_in_urls(
    make_app: MakeApp, settings: Settings, capsys: pytest.CaptureFixture[str], formatter: str
) -> None:
    make_app(APP_LOGGING__HANDLERS__CONSOLE__FORMATTER=formatter)
    library.error("saved", extra={"password": "hunter2", "API_KEY": "hunter2", "csrf_token": ["hunter2"]})
    library.error("sent", extra={"headers": {"Authorization": "Bearer hunter2", "list": [{"Set-Cookie": "hunter2"}]}})
    library.error("connect redis://:hunter2@cache:6379 and https://ada:hunter2@x.org/?token=hunter2&page=7")
    try:
        raise ConnectionError("postgresql://ada:hunter2@db:5432/app")
    except ConnectionError:
        library.exception("no database")
    logged = capsys.readouterr().err
    assert "hunter2" not in logged + settings.app_dir.error_log.read_text()
    assert logged.count("***") >= 8
    assert "page=7" in logged


def test_what_is_no_secret_stays(make_app: MakeApp, records: Records) -> None:
    make_app(**JSON)
    event = "GET https://example.org/a?page=2 took 10:30, order: 5"
    library.warning(event, extra={"route": "/posts/<id>", "count": 3, "names": ["ada"], "password_min_length": 12})
    [record] = records()
    assert record["event"] == event
    assert (record["route"], record["count"], record["names"]) == ("/posts/<id>", 3, ["ada"])
    assert record["password_min_length"] == 12


def test_a_value_that_json_does_not_know_is_logged_all_the_same(make_app: MakeApp, records: Records) -> None:
    make_app(**JSON)
    for value in ({1, 2}, object, {("a", "b"): 1}, "\ud800", b"\xff", float("nan")):
        library.warning("odd", extra={"value": value})
    assert [record["event"] for record in records()] == ["odd"] * 6


def test_errors_and_what_administrators_do_are_kept_in_files(make_app: MakeApp, settings: Settings) -> None:
    make_app(**PEOPLE)
    library.warning("only a warning")
    library.error("broken", extra={"order": 1815})
    logging.getLogger("app.audit").info("job retried", extra={"user_id": 7})
    [error] = settings.app_dir.error_log.read_text().splitlines()
    [audit] = (settings.app_dir.path / "logs/audit.jsonl").read_text().splitlines()
    assert {"event": "broken", "level": "error", "order": 1815}.items() <= json.loads(error).items()
    assert {"event": "job retried", "user_id": 7}.items() <= json.loads(audit).items()


def test_a_log_file_may_be_renamed_and_one_that_cannot_be_written_is_a_line(
    make_app: MakeApp, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    make_app(**PEOPLE)
    log, older = settings.app_dir.error_log, settings.app_dir.error_log.with_name("older")
    library.error("first")
    log.rename(older)
    library.error("second")
    assert ["first" in older.read_text(), "second" in log.read_text()] == [True, True]
    for path in (log, older):
        path.unlink()
    log.parent.rmdir()
    capsys.readouterr()
    library.error("third")
    assert f"{log}: cannot be written: No such file or directory" in capsys.readouterr().err.splitlines()
    log.parent.mkdir()
    library.error("fourth")
    assert "fourth" in log.read_text()


def test_a_mistake_in_the_logging_file_is_named(make_app: MakeApp) -> None:
    with pytest.raises(ConfigError, match=r"^config/logging.json: Unknown level: 'LOUD'$"):
        make_app(APP_LOGGING__ROOT__LEVEL="LOUD")
