"""Sign-in at a provider that runs here."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from flask import Flask
from joserfc import jwt
from joserfc.jwk import RSAKey
from joserfc.util import urlsafe_b64encode
from sqlalchemy import func, select

from app.accounts import User
from app.services import transaction

KEYS = [RSAKey.generate_key(2048, {"kid": "1"}) for _ in range(2)]
ADA = {"sub": "1815", "preferred_username": "Ada", "email": "grace@example.org", "email_verified": True}


class Provider(ThreadingHTTPServer):
    """Lets in everybody as `person`; what it says in an ID token can be changed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self.person: dict[str, object] = dict(ADA)
        self.changes: dict[str, object] = {}
        self.key = KEYS[0]
        # What was asked for, by the code that was given for it.
        self.asked: dict[str, dict[str, str]] = {}

    def authorize(self, query: dict[str, str]) -> str:
        """The address to go on to."""
        assert query["code_challenge_method"] == "S256"
        code = str(len(self.asked))
        self.asked[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, str]:
        asked = self.asked.pop(form["code"])
        assert urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode() == asked["code_challenge"]
        assert form["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": asked["client_id"], "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        id_token = jwt.encode({"alg": "RS256", "kid": "1"}, {**claims, **self.person, **self.changes}, self.key)
        return {"access_token": "a", "token_type": "Bearer", "id_token": id_token}


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        url, issuer = urlsplit(self.path), self.server.issuer
        if url.path == "/authorize":
            self.send_response(302)
            self.send_header("Location", self.server.authorize(fields(url.query)))
            self.end_headers()
        elif url.path == "/keys":
            self.answer({"keys": [KEYS[0].as_dict(private=False)]})
        else:
            ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            self.answer({"issuer": issuer, **{name: f"{issuer}/{path}" for name, path in ends.items()}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(self.server.token(fields(body)))

    def answer(self, content: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


def fields(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def app(make_app: Callable[..., Flask], provider: Provider) -> Flask:
    metadata = f"{provider.issuer}/.well-known/openid-configuration"
    return make_app(SSO_METADATA_URL=metadata, SSO_CLIENT_ID="service", SSO_CLIENT_SECRET="sesame")


def way_back(client: Any) -> str:
    """Where the provider sends a browser that asks to sign in."""
    there = client.get("/sso/login").location
    return requests.get(there, allow_redirects=False, timeout=10).headers["Location"].removeprefix("http://localhost")


def sign_in(client: Any) -> Any:
    return client.get(way_back(client))


def accounts(app: Flask) -> int:
    with transaction(app) as session:
        return session.scalar(select(func.count()).select_from(User)) or 0


def test_an_account_is_made_once_and_found_again(app: Flask, provider: Provider, other_user: User) -> None:
    first, second = app.test_client(), app.test_client()
    first.get("/account")
    assert sign_in(first).location == "/account"
    provider.person["preferred_username"] = "lovelace"
    assert sign_in(second).location == "/"
    assert "/profile/ada" in second.get("/").text
    assert accounts(app) == 2
    third: Any = app.test_client()
    assert third.log_in("ada", "").status_code == third.log_in("ada", "sesame").status_code == 422


def test_a_name_is_made_of_what_there_is(app: Flask, provider: Provider) -> None:
    provider.person["preferred_username"] = "Ada.Lovelace@example.org"
    client: Any = app.test_client()
    assert sign_in(client).location == "/"
    assert "/profile/ada-lovelace" in client.get("/").text


# Without a name, it is that of the address, which is grace's.
@pytest.mark.parametrize("name", ["Grace", "grace@example.com", "al", "-ada", "ä@x", ""])
def test_a_name_that_is_taken_or_not_valid_is_refused(
    app: Flask, provider: Provider, other_user: User, name: str
) -> None:
    provider.person["preferred_username"] = name
    client: Any = app.test_client()
    refused = sign_in(client)
    assert refused.status_code == 403
    assert "Ask an administrator." in refused.text
    assert accounts(app) == 1
    assert client.get("/account").status_code == 302


@pytest.mark.parametrize("change", [{"nonce": "x"}, {"key": 1}, {"state": "x"}])
def test_what_was_altered_is_refused(app: Flask, provider: Provider, change: dict[str, Any]) -> None:
    client: Any = app.test_client()
    path = way_back(client)
    if "state" in change:
        path = f"{path.partition('&state=')[0]}&state=x"
    provider.key = KEYS[change.get("key", 0)]
    provider.changes = change
    back = client.get(path)
    assert back.location == "/login"
    assert "did not succeed" in client.get("/login", follow_redirects=True).text
    assert accounts(app) == 0


def test_a_link_of_another_browser_logs_nobody_in(app: Flask) -> None:
    assert app.test_client().get(way_back(app.test_client())).location == "/login"


def test_errors_of_the_provider_are_one_message(app: Flask, provider: Provider) -> None:
    client: Any = app.test_client()
    state = way_back(client).partition("&state=")[2]
    denied = f"/sso/callback?error=access_denied&error_description=<b>Call+us</b>&state={state}"
    assert client.get(denied).location == "/login"
    page = client.get("/login").text
    assert "The sign-in did not succeed." in page
    assert "Call us" not in page


def test_a_provider_that_is_down_is_told(app: Flask, provider: Provider) -> None:
    provider.server_close()
    client: Any = app.test_client()
    assert client.get("/sso/login", follow_redirects=True).text.count("did not succeed") == 1
