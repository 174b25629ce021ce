"""The numbers at /metrics: what they count, and who may see them."""

import secrets
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import svcs
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from app.jobs import do_nothing
from config import Settings

MakeApp = Callable[..., Flask]
TOKEN = secrets.token_urlsafe()
LOOPBACK = {"REMOTE_ADDR": "127.0.0.1"}
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}


def numbers(client: Any) -> dict[tuple[str, ...], float]:
    """Each number by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_not_by_path(client: Any) -> None:
    for path in ("/profile/ada", "/profile/grace", "/nowhere/1", "/nowhere/2", "/login"):
        client.get(path)
    client.post("/login")
    for method in ("BREW", "X" * 100):
        client.open("/nowhere", method=method)
    found = numbers(client)
    assert {key: value for key, value in found.items() if key[0] == "http_requests_total"} == {
        ("http_requests_total", "GET", "/profile/<username>", "404"): 2,
        ("http_requests_total", "GET", "/login", "200"): 1,
        ("http_requests_total", "POST", "/login", "400"): 1,
        ("http_requests_total", "any", "unmatched", "404"): 4,
    }
    assert found["http_request_duration_seconds_count", "/login"] == 2
    assert 0 < found["http_request_duration_seconds_sum", "/login"] < 10


def test_queues_are_counted_at_the_time_of_the_scrape(client: Any) -> None:
    assert ("queue_messages", "default", "waiting") not in numbers(client)
    do_nothing.send()
    do_nothing.send_with_options(delay=60_000)
    found = numbers(client)
    assert (found["queue_messages", "default", "waiting"], found["queue_messages", "default", "delayed"]) == (1, 1)


def test_without_a_database_what_was_counted_still_comes(
    app: Flask, client: Any, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/login")
    with app.app_context():
        svcs.flask.get(Engine).dispose()
    shutil.rmtree(settings.app_dir.data)
    assert numbers(client)["http_requests_total", "GET", "/login", "200"] == 1
    assert "metrics: the queues are left out: unable to open database file" in caplog.text


@pytest.mark.parametrize("proxies", ["0", "1"])
def test_only_this_machine_and_clients_with_the_token_see_them(make_app: MakeApp, proxies: str) -> None:
    client = make_app(METRICS_TOKEN=TOKEN, APP_WEB__TRUSTED_PROXIES=proxies).test_client()
    nowhere = client.get("/nowhere").text
    for environ, headers, allowed in (
        (LOOPBACK, {}, True),
        ({"REMOTE_ADDR": "::1"}, {}, True),
        ({"REMOTE_ADDR": "::ffff:127.0.0.1"}, {}, True),
        (ELSEWHERE, {}, False),
        ({"REMOTE_ADDR": "::ffff:192.0.2.7"}, {}, False),
        # Through a Unix socket.
        ({"REMOTE_ADDR": ""}, {}, False),
        (LOOPBACK, {"X-Forwarded-For": "127.0.0.1"}, False),
        (LOOPBACK, {"X-Forwarded-Proto": "https"}, False),
        (LOOPBACK, {"Forwarded": "for=127.0.0.1"}, False),
        (LOOPBACK, {"X-Real-IP": "127.0.0.1"}, False),
        (LOOPBACK, {"Via": "1.1 proxy"}, False),
        (ELSEWHERE, {"Authorization": f"Bearer {TOKEN}"}, True),
        (LOOPBACK, {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "192.0.2.7"}, True),
        (ELSEWHERE, {"Authorization": f"Bearer {TOKEN}x"}, False),
        (ELSEWHERE, {"Authorization": TOKEN}, False),
        (ELSEWHERE, {"Authorization": "Bearer \xe4"}, False),
    ):
        response = client.get("/metrics", environ_overrides=environ, headers=headers)
        assert response.status_code == (200 if allowed else 404), (environ, headers)
        assert allowed or response.text == nowhere


def test_without_a_token_no_token_opens_them(client: Any) -> None:
    for given in ("Bearer ", "Bearer", ""):
        answer = client.get("/metrics", environ_overrides=ELSEWHERE, headers={"Authorization": given})
        assert answer.status_code == 404
