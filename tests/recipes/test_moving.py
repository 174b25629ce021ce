"""All that a service has is there after the move to PostgreSQL, Redis and S3, and after the way back."""

import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import dramatiq
import psycopg
import pytest
import redis
from flask import Flask
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from app.accounts import User
from app.api.models import Answer, Token
from app.jobs import do_nothing
from app.services import transaction
from backup.databases import database_url
from config import ROOT, Settings, load
from database import Base, connect, utc_now
from database.broker import QueueMessage
from database.job_counts import JobCount
from storage.disks import open_disks

PATIENCE = 60
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
PASSWORD = secrets.token_hex(8)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError, psycopg.OperationalError, redis.ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The three places, as `.env` names them. Each server has a password or keys, and ends with the test."""
    with ExitStack() as stack:
        # Not in pytest's folder, which nobody else may enter.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="moving-", dir="/tmp")))
        log = stack.enter_context((folder / "log").open("wb"))
        options: dict[str, Any] = {"cwd": folder, "stdout": log, "stderr": log}
        other: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

        def start(*command: str | Path, **who: Any) -> None:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "INT", *command], **options, **who)
            stack.enter_context(process)
            stack.callback(process.send_signal, signal.SIGINT)

        (folder / "password").write_text(PASSWORD)
        login = ["--username=ada", "--pwfile=password", "--auth=scram-sha-256", "--no-sync"]
        subprocess.run([POSTGRES / "initdb", "-D", "data", *login], check=True, **options, **other)
        database, queue, files = (str(free_port()) for _ in range(3))
        start(POSTGRES / "postgres", "-D", "data", "-h", "127.0.0.1", "-p", database, "-k", "", "-F", **other)
        (folder / "redis.conf").write_text(f'bind 127.0.0.1\nport {queue}\nrequirepass {PASSWORD}\nsave ""\n')
        start("redis-server", "redis.conf")
        start("moto_server", "-H", "127.0.0.1", "-p", files)
        keys = "region=us-east-1&access_key_id=a&secret_access_key=b"
        urls = {
            "DATABASE_URL": f"postgresql://ada:{PASSWORD}@127.0.0.1:{database}/postgres",
            "QUEUE_URL": f"redis://:{PASSWORD}@127.0.0.1:{queue}/0",
            "STORAGE_URL": f"s3://bucket/here?endpoint=http://127.0.0.1:{files}&{keys}",
        }

        def answer() -> bool:
            make_bucket = Request(f"http://127.0.0.1:{files}/bucket", method="PUT")
            with psycopg.connect(urls["DATABASE_URL"]), redis.Redis.from_url(urls["QUEUE_URL"]) as client:
                return bool(client.ping() and urlopen(make_bucket).read() == b"")

        wait_for(answer)
        yield urls


class Installation:
    """An app folder, whose `.env` says where the rest is."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.app_dir
        self.folder.make()
        self.environ = {"APP_ENV": "testing", "APP_DIR": str(self.folder.path)}
        self.env_file = self.folder.env_file.read_text()

    def write_places(self, places: dict[str, str]) -> None:
        lines = [f"{name}='{url}'\n" for name, url in places.items()]
        self.folder.env_file.write_text("".join([self.env_file, *lines]))

    def run(self, *words: str, **environ: str) -> tuple[int, str]:
        result = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**self.environ, "PATH": os.environ["PATH"], **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout

    def do(self, *words: str, **environ: str) -> None:
        code, output = self.run(*words, **environ)
        assert code == 0, output

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        engine = connect(database_url(load(self.environ)))
        with engine.begin() as connection:
            yield connection
        engine.dispose()

    def rows(self) -> dict[str, Sequence[Any]]:
        """All that is in the tables, but for jobs, which move to another place, and their counts."""
        tables = [table for table in Base.metadata.sorted_tables if table.name not in ("queue_message", "job_count")]
        with self.connection() as connection:
            return {
                table.name: connection.execute(select(table).order_by(*table.primary_key)).all() for table in tables
            }

    def files(self) -> dict[str, dict[str, bytes]]:
        disks = open_disks(load(self.environ))
        return {name: {entry.path: disk.read(entry.path) for entry in disk.list()} for name, disk in disks.items()}

    def jobs_done(self) -> int:
        with self.connection() as connection:
            done = select(func.sum(JobCount.jobs)).where(JobCount.actor == do_nothing.actor_name)
            return int(connection.scalar(done) or 0)

    def add_rows(self) -> tuple[int, int]:
        """The numbers of a new account and its token."""
        with self.connection() as connection, Session(connection) as session:
            session.add(user := User(username=secrets.token_hex(8), email="a@example.org", password_hash="x"))
            session.flush()
            session.add(token := token_of(user))
            session.commit()
            return user.id, token.id


def token_of(user: User) -> Token:
    return Token(owner_id=user.id, name="ä", scope="read", hash=secrets.token_hex(32), ends=utc_now())


@pytest.fixture
def installation(app: Flask, settings: Settings) -> Installation:
    """A service that has worked for a while, and has jobs to do."""
    installation = Installation(settings)
    with transaction(app) as session:
        users = [User(username=f"user{number}", email="a@example.org", password_hash="x") for number in range(2500)]
        session.add_all(users)
        session.flush()
        session.add_all(tokens := [token_of(user) for user in users[:5]])
        session.add(Answer(owner_id=1, key="a", digest="b", status=200, headers={"ETag": "1"}, body="c"))
        session.flush()
        session.delete(tokens[-1])
        do_nothing.send()
        do_nothing.send_with_options(delay=1000)
        do_nothing.send_with_options(delay=3_600_000)
    disks = open_disks(settings)
    for number in range(5):
        disks["default"].write(f"folder/{number}.bin", secrets.token_bytes(number * 100_000))
    disks["media"].write("pictures/ä.webp", b"a picture")
    return installation


def test_all_is_there_after_the_move_and_after_the_way_back(
    installation: Installation, servers: dict[str, str], tmp_path: Path
) -> None:
    rows, files = installation.rows(), installation.files()
    assert len(rows["user_account"]) == 2500

    installation.write_places(servers)
    code, output = installation.run("-m", "move")
    assert (code, "main.py db upgrade" in output) == (2, True)
    installation.do("main.py", "db", "upgrade")
    installation.do("-m", "move")
    installation.do("main.py", "check")
    assert installation.rows() == rows
    assert installation.files() == files

    # What is there already is not touched.
    code, output = installation.run("-m", "move")
    assert (code, "has rows already" in output) == (1, True), output
    assert installation.rows() == rows

    # New rows get new numbers, jobs run, and a delayed one keeps its time.
    assert installation.add_rows() == (2501, 6)
    worker = subprocess.Popen([sys.executable, "queues.py"], cwd=ROOT, env=installation.environ)
    try:
        wait_for(lambda: installation.jobs_done() == 2)
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
    with redis.Redis.from_url(servers["QUEUE_URL"]) as client:
        [delayed] = [dramatiq.Message.decode(data) for data in client.hvals("dramatiq:default.DQ.msgs")]
    assert 0 < delayed.options["eta"] / 1000 - time.time() < 3600

    rows = installation.rows()
    for path in installation.folder.data.glob("app.sqlite3*"):
        path.rename(tmp_path / path.name)
    installation.do("main.py", "db", "upgrade", DATABASE_URL="")
    installation.do("-m", "move", "--back")
    installation.write_places({})
    assert installation.rows() == rows
    assert installation.files() == files
    assert installation.add_rows() == (2502, 7)


def test_jobs_that_are_moved_alone_are_moved_once(installation: Installation, servers: dict[str, str]) -> None:
    queue = f"{servers['QUEUE_URL'].rpartition('/')[0]}/1"
    installation.write_places({"QUEUE_URL": queue})
    for _ in range(2):
        installation.do("-m", "move")
    with redis.Redis.from_url(queue) as client:
        assert sum(client.hlen(f"dramatiq:default{kind}.msgs") for kind in ("", ".DQ")) == 3
    with installation.connection() as connection:
        assert connection.scalar(select(func.count(QueueMessage.id))) == 0
