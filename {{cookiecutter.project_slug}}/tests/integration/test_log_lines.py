"""One record a line, with what is needed to find it again and without what nobody may read."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from flask import Flask

from config import ConfigError

MakeApp = Callable[..., Flask]
JSON_LINES = {"APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "json"}


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
    for path in ("/livez", "/readyz", "/version", "/static/style.css"):
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
