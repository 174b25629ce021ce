"""Results are kept in files and in Redis, and a job makes new ones."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import svcs
from cachelib import BaseCache, FileSystemCache, RedisCache
from cachelib.serializers import JSONSerializer
from flask import Flask
from flask.testing import FlaskClient
from redis import ConnectionError as RedisAway
from redis import Redis
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.accounts import User
from app.cache import cached
from app.services import transaction
from config import Settings
from database.broker import QueueMessage
from tests.conftest import add_user, run_jobs

# What `shout` was called with.
calls: list[str] = []


@cached(60)
def shout(word: Any) -> Any:
    calls.append(word)
    return {"odd": object(), "pair": ("a", "b")}.get(word, f"{word}{'!' * len(calls)}")


@pytest.fixture(autouse=True)
def _forget_calls() -> None:
    calls.clear()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("redis-server")
    assert program, "the check needs redis-server"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/1"
        with Redis.from_url(url) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with suppress(RedisAway):
                    client.ping()
                    break
        yield url
        server.terminate()


@pytest.fixture(params=["", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("redis_url")) if request.param else ""


@pytest.fixture
def app(make_app: Callable[..., Flask], url: str) -> Iterator[Flask]:
    app = make_app(CACHE_URL=url)
    yield app
    if url:
        with Redis.from_url(url) as client:
            client.flushdb()


def waiting(app: Flask) -> int:
    with app.app_context():
        return svcs.flask.get(Session).scalars(select(func.count(QueueMessage.id))).one()


def count(client: FlaskClient) -> int:
    answer = client.get("/users/count")
    assert answer.headers["Cache-Control"] == "no-store"
    return int(answer.get_json()["users"])


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """What is kept is older by so much; neither the cache nor its server knows."""
    monkeypatch.setattr("app.cache.time", SimpleNamespace(time=lambda: time.time() + seconds))


def test_an_old_result_is_given_and_one_job_makes_a_new_one(
    app: Flask, client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count(client) == 0
    add_user(app, settings, "ada")
    assert count(client) == 0
    assert waiting(app) == 0

    later(monkeypatch, 61)
    assert [count(client) for _ in range(3)] == [0, 0, 0]
    assert waiting(app) == 1
    assert run_jobs() == 0
    assert [count(client) for _ in range(3)] == [1, 1, 1]
    assert waiting(app) == 0

    add_user(app, settings, "grace")
    later(monkeypatch, 122)
    assert [count(client), waiting(app), run_jobs(), count(client)] == [1, 1, 0, 2]


def test_each_argument_has_a_result_which_is_what_json_gives(app: Flask) -> None:
    with app.app_context():
        assert [shout("a"), shout("b"), shout("a"), shout("pair"), shout("pair")] == [
            "a!",
            "b!!",
            "a!",
            *[["a", "b"]] * 2,
        ]
        assert calls == ["a", "b", "pair"]
        for word in ("odd", object()):
            with pytest.raises(TypeError, match="not JSON serializable"):
                shout(word)


@pytest.mark.parametrize("method", ["POST", "job"])
def test_what_writes_sends_the_job_when_it_commits(app: Flask, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    with app.app_context():
        shout("a")
    later(monkeypatch, 61)
    with app.test_request_context(method=method) if method == "POST" else transaction(app):
        session = svcs.flask.get(Session)
        session.add(User(username="ada", email="-", password_hash="-"))
        session.flush()
        assert shout("a") == "a!"
        assert waiting(app) == 0
        session.commit()
    assert waiting(app) == 1
    assert run_jobs() == 0
    with app.app_context():
        assert shout("a") == "a!!"


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_requests_of_one_moment_send_one_job(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.app_context():
        shout("a")
    later(monkeypatch, 61)
    together = Barrier(8)

    def ask(_: int) -> str:
        with app.test_request_context():
            svcs.flask.get(BaseCache)
            together.wait()
            return str(shout("a"))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"a!"}
    assert waiting(app) == 1


def test_nothing_is_unpickled() -> None:
    assert isinstance(FileSystemCache.serializer, JSONSerializer)
    assert isinstance(RedisCache.serializer, JSONSerializer)


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_queue_in_redis_gets_the_job(
    make_app: Callable[..., Flask], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = make_app(CACHE_URL=url, QUEUE_URL=url).test_client()
    assert count(client) == 0
    later(monkeypatch, 61)
    assert [count(client), count(client)] == [0, 0]
    with Redis.from_url(url) as redis:
        assert redis.llen("dramatiq:default") == 1
        redis.flushdb()


def test_while_redis_is_away_pages_are_slower_and_work(make_app: Callable[..., Flask]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    app = make_app(CACHE_URL=f"redis://:hunter2@127.0.0.1:{port}")
    assert app.test_client().get("/users/count").get_json() == {"users": 0}
