"""What happens around every request: identity, headers, limits, trust."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, jsonify, request

from config import Settings

MakeApp = Callable[..., Flask]
FORWARDED = {
    "X-Forwarded-For": "192.0.2.66, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "www.example.org",
}


def test_every_answer_has_the_security_headers_and_an_id(client: Any, settings: Settings) -> None:
    for method, path, status in (
        ("GET", "/login", 200),
        ("GET", "/logout", 302),
        ("POST", "/login", 400),
        ("GET", "/nowhere", 404),
        ("PUT", "/login", 405),
        ("GET", "/metrics", 200),
        ("GET", "/static/style.css", 200),
    ):
        with client.open(path, method=method) as response:
            assert response.status_code == status
            assert settings.security.headers.items() <= dict(response.headers).items()
            assert response.headers["X-Request-ID"]


def test_the_policy_allows_no_inline_code_and_no_foreign_source(client: Any) -> None:
    policy = client.get("/login").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    sources = {source for rule in policy.split(";") for source in rule.split()[1:]}
    assert sources == {"'none'", "'self'"}
    assert {"base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"} <= set(policy.split("; "))


def test_production_insists_on_https(make_app: MakeApp) -> None:
    response = make_app(APP_ENV="production").test_client().get("/login")
    assert "max-age=" in response.headers["Strict-Transport-Security"]
    assert "; Secure;" in response.headers["Set-Cookie"]


def test_pages_are_not_kept_and_static_files_may_be(client: Any) -> None:
    assert client.get("/login").headers["Cache-Control"] == "no-store"
    assert client.get("/nowhere").headers["Cache-Control"] == "no-store"
    with client.get("/static/style.css") as style:
        assert style.headers["Cache-Control"] == "no-cache"
        assert style.headers["ETag"]


def test_every_request_has_an_id_of_its_own(client: Any) -> None:
    ids = {client.get(path).headers["X-Request-ID"] for path in ("/login", "/login", "/nowhere")}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in ids)


@pytest.mark.parametrize(("proxies", "well_formed_is_taken"), [("1", True), ("0", False)])
def test_a_proxys_request_id_is_taken_if_it_is_trusted_and_well_formed(
    make_app: MakeApp, proxies: str, well_formed_is_taken: bool
) -> None:
    client = make_app(APP_WEB__TRUSTED_PROXIES=proxies).test_client()

    def is_taken(number: str) -> bool:
        return client.get("/login", headers={"X-Request-ID": number}).headers["X-Request-ID"] == number

    assert [is_taken(number) for number in ("From-Proxy_1.5", "x" * 64)] == [well_formed_is_taken] * 2
    assert not any(is_taken(number) for number in ("x" * 65, "two words", '"}<script>', "ö"))


@pytest.mark.parametrize(
    ("proxies", "address", "scheme", "host"),
    [(0, "127.0.0.1", "http", "localhost"), (1, "203.0.113.9", "https", "www.example.org")],
)
def test_only_as_many_proxies_are_believed_as_the_settings_say(
    make_app: MakeApp, proxies: int, address: str, scheme: str, host: str
) -> None:
    app = make_app(APP_WEB__TRUSTED_PROXIES=str(proxies))

    @app.get("/who")
    def who() -> Any:
        return jsonify([request.remote_addr, request.scheme, request.host])

    assert app.test_client().get("/who", headers=FORWARDED).json == [address, scheme, host]


def test_a_host_that_is_not_trusted_is_refused(make_app: MakeApp) -> None:
    client = make_app(APP_SECURITY__TRUSTED_HOSTS='["example.org", ".example.net"]').test_client()
    statuses = {"example.org": 200, "www.example.net": 200, "evil.example": 400, "example.org.evil.example": 400}
    for accept in ("text/html", "application/json"):
        answers = [client.get("/login", headers={"Host": host, "Accept": accept}) for host in statuses]
        assert [answer.status_code for answer in answers] == list(statuses.values())
        assert "evil.example" not in "".join(answers[-1].text.split("not trusted")[1:])


def test_no_answer_brings_back_an_older_session(logged_in: Any) -> None:
    for path in ("/", "/static/style.css", "/nowhere"):
        with logged_in.get(path) as response:
            assert "Set-Cookie" not in response.headers
