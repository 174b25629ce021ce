"""A service that is used, and what has to be true of a copy of it. `python rehearsal.py` uses one until SIGTERM.

Each process is a browser and a worker: accounts come, post, and change their pictures, so that rows and files come
and go together.
"""

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dramatiq
import svcs
from flask import Flask
from PIL import Image
from sqlalchemy import select, text, update
from werkzeug.datastructures import FileStorage

from app import create_app
from app.accounts import User
from app.services import transaction
from config import feature_names, load
from database.broker import QueueMessage
from storage.disks import Disks

ROOT = Path(__file__).resolve().parents[4]
PASSWORD = "correct horse battery"
ATTEMPTS = ("LOGIN", "REGISTER", "PICTURE")
PATIENCE = 60


def environment(app_dir: Path, **more: str) -> dict[str, str]:
    """The variables of an installation in which nobody is told to slow down."""
    python = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("PYTHON")}
    limits = {f"APP_SECURITY__RATE_LIMITS__{name}": "1000000 per hour" for name in ATTEMPTS}
    return {**python, "APP_ENV": "testing", "APP_DIR": str(app_dir), **limits, **more}


@contextmanager
def used(environ: dict[str, str], processes: int) -> Iterator[None]:
    """While it is entered, so many processes use the service; each of them has begun."""
    with ExitStack() as stack:
        log = stack.enter_context(Path(environ["APP_DIR"], "logs/used").open("a"))
        started = []
        for _ in range(processes):
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve())],
                env={**environ, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.terminate)
            started.append(process)
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "in use\n"
        yield
        for process in started:
            process.terminate()
            assert process.wait(PATIENCE) == 0


def picture() -> bytes:
    """One that no other is equal to."""
    file = io.BytesIO()
    Image.frombytes("RGB", (60, 40), os.urandom(60 * 40 * 3)).save(file, "PNG")
    return file.getvalue()


def use(app: Flask, stop: threading.Event) -> None:
    """Register, post, and change pictures until it is time to end."""
    has_posts = "blog" in feature_names()
    rounds = 0
    while not stop.is_set():
        client = app.test_client()
        name = f"u{os.getpid()}_{rounds}"
        send(client, "/register", username=name, email=f"{name}@example.org", password=PASSWORD)
        for number in range(3):
            if has_posts:
                title = f"{name} {number}"
                send(client, "/posts/new", title=title, body=body_of(title))
            send(client, "/picture", picture=FileStorage(io.BytesIO(picture()), "a.png", content_type="image/png"))
        if rounds % 3 == 0:
            send(client, "/picture/remove", page="/picture")
        rounds += 1
        if rounds == 2:
            sys.stdout.write("in use\n")
            sys.stdout.flush()


def body_of(title: str) -> str:
    """The text of a post, which shows that both belong together."""
    return hashlib.sha256(title.encode()).hexdigest() * 20


def send(client: Any, path: str, *, page: str | None = None, **fields: Any) -> None:
    """Fill in a form; it has to be taken."""
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get(page or path).text)
    assert token, f"{page or path} shows no form"
    response = client.post(path, data={"csrf_token": token[1], **fields})
    assert response.status_code == 302, (path, response.status_code)


def main() -> None:
    """Use the service, and do its jobs."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    app = create_app()
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        use(app, stop)
    finally:
        worker.stop()
        svcs.flask.close_registry(app)


def problems(restored: Path, live: Path, environ: dict[str, str]) -> list[str]:
    """What is wrong with a restored installation: a line for each row without its file, or job, or half of itself."""
    found: list[str] = []
    app = create_app(load({**environ, "APP_DIR": str(restored)}))
    try:
        with app.app_context():
            disks = svcs.flask.get(Disks)
        with transaction(app) as session:
            users = list(session.scalars(select(User)))
            messages = list(session.scalars(select(QueueMessage)))
            posts = session.execute(text("SELECT title, body FROM post")).all() if "blog" in feature_names() else []
        by_id = {user.id: user for user in users}
        named = [("media", user.picture) for user in users if user.picture]
        named += [("default", f"accounts/uploads/{user.picture_upload}") for user in users if user.picture_upload]
        for message in messages:
            args = dramatiq.Message.decode(message.payload).args
            if message.actor == "make_picture" and by_id[args[0]].picture_upload == args[1]:
                named.append(("default", f"accounts/uploads/{args[1]}"))
            if message.dead:
                found.append(f"{message.actor} has failed: {message.error}")
        folders = {"media": "media", "default": "data/uploads"}
        for disk, path in named:
            if not disks[disk].exists(path):
                found.append(f"{disk} lacks {path}")
            elif (still := live / folders[disk] / path).exists() and still.read_bytes() != disks[disk].read(path):
                found.append(f"{path} is another one")
        found += [f"{title!r} is half there" for title, body in posts if body != body_of(title)]
        client = app.test_client()
        pages = ["/readyz", "/", *(f"/profile/{user.username}" for user in users[-3:])]
        found += [f"{page}: {code}" for page in pages if (code := client.get(page).status_code) != 200]
        if not users or not named:
            found.append("nothing was written before the backup")
        found += _finish(app)
    finally:
        svcs.flask.close_registry(app)
    return found


def _finish(app: Flask) -> Iterator[str]:
    """Do all jobs that the restored queue holds, as if it were later: those too that a worker had, or that waited."""
    unfinished, now = update(QueueMessage).where(~QueueMessage.dead), {"due": 0, "wait": 0}
    with transaction(app) as session:
        session.execute(unfinished.values(now))
    worker = dramatiq.Worker(dramatiq.get_broker(), worker_timeout=10, worker_threads=2)
    worker.start()
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            with transaction(app) as session:
                # A job may send others that are to wait a day.
                session.execute(unfinished.where(QueueMessage.owner.is_(None)).values(now))
                left = list(session.scalars(select(QueueMessage.dead)))
            if all(left) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    finally:
        worker.stop()
    yield from (f"{len(left)} jobs cannot be done" for _ in left[:1])
    with transaction(app) as session:
        waiting = list(session.scalars(select(User.username).where(User.picture_upload.is_not(None))))
    yield from (f"{name} waits for a picture for ever" for name in waiting)


if __name__ == "__main__":
    main()
