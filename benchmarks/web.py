"""The blog's first page and an empty one, beside two Flask and sqlite3 applications that are written by hand.

`reference/bare.py` renders the same page, but for white space; `reference/dutiful.py` has the service's duties as well:
a JSON log line, a request id, security headers, and metrics. gunicorn serves each with one worker and one thread, and
wrk asks them in turns. It needs Linux.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

from benchmarks import TEMPLATE
from benchmarks.projects import bake, run
from benchmarks.rows import NotMeasuredError, Row, rounds

REFERENCE = TEMPLATE / "benchmarks/reference"
HOST = "127.0.0.1"
ROUNDS = 9
SECONDS = 2
PATIENCE = 60
FEW, MANY = 1_000, 1_000_000

IMPORT = Row("Importing web", "ms of CPU", 1.6, beside="flask, sqlalchemy.orm")
DUTIFUL = Row("Blog index", "requests/s", 0.9, beside="Flask + sqlite3, same duties", higher=True)
BARE = Row("Blog index, beside a bare application", "requests/s", 0.7, beside="Flask + sqlite3, no duties", higher=True)
MILLION = Row("Blog index at 1,000,000 posts", "ms", 1.2, beside="that at 1,000 posts")
EMPTY = Row("Empty page, CPU beyond bare Flask", "µs", 250)
ROWS = (IMPORT, DUTIFUL, BARE, MILLION, EMPTY)

# The service with an empty page; gunicorn serves it instead of web.py.
MODULE = """
from web import app

app.add_url_rule("/empty", "empty", lambda: "empty")
"""
# Posts of one user, as many as are asked for.
SEED = """
import sys
from sqlalchemy import bindparam, text
from app import create_app
from app.accounts import User
from app.blog import Post
from app.services import transaction
from database import utc_now

FILL = text('''
    INSERT INTO post (author_id, title, body, created)
    WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :posts)
    SELECT 1, 'post number ' || number, :body, :created FROM numbers
''').bindparams(bindparam("created", type_=Post.created.type))

with transaction(create_app()) as session:
    session.add(User(id=1, username="ada", email="ada@example.org", password_hash="-"))
    session.flush()
    session.execute(FILL, {"posts": int(sys.argv[1]), "body": "words " * 60, "created": utc_now()})
"""
# What importing takes, without Python's own start.
TIMED = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"


class Server:
    """gunicorn with one of the applications."""

    def __init__(self, stack: ExitStack, folder: Path, application: str, environ: dict[str, str], log: Path) -> None:
        self.application = application
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        printed = stack.enter_context(log.open("wb"))
        options = ["--bind", f"{HOST}:{self.port}", "--workers", "1", "--threads", "1", "--worker-class", "gthread"]
        command = [sys.executable, "-m", "gunicorn", *options, f"{application}:app"]
        self.process = subprocess.Popen(command, cwd=folder, env=environ, stdout=printed, stderr=printed)
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)

    def read(self, path: str) -> str:
        """A page, once it is there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), urlopen(f"http://{HOST}:{self.port}{path}", timeout=5) as response:
                return str(response.read(), "utf-8")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.application}: does not answer")
            time.sleep(0.1)

    def requests_per_second(self, path: str) -> float:
        command = ["wrk", "-t1", "-c4", f"-d{SECONDS}s", f"http://{HOST}:{self.port}{path}"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "Non-2xx" not in printed, printed
        return float(printed.partition("Requests/sec:")[2].split()[0])

    def processor_microseconds(self, path: str) -> float:
        """What a request takes of the processor, which other programs on this machine change little."""
        used = self.processor_seconds()
        requests = self.requests_per_second(path) * SECONDS
        return (self.processor_seconds() - used) / requests * 1e6

    def processor_seconds(self) -> float:
        """What the worker has used so far."""
        [worker] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        user, system = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def settings(folder: Path, project: Path, posts: int) -> dict[str, str]:
    """The environment of an installation with so many posts."""
    environ = {"PATH": os.environ["PATH"], "APP_ENV": "production", "APP_DIR": str(folder)}
    for command in (("main.py", "appdir", "make"), ("main.py", "db", "upgrade"), ("-c", SEED, str(posts))):
        run(project, sys.executable, *command, environ=environ)
    return environ


def measure() -> Iterator[Row]:
    """All pages are checked to be the same first."""
    if not shutil.which("wrk"):
        raise NotMeasuredError("needs wrk: apt install wrk")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="web-bench-")))
        project = bake(folder)
        (project / "with_empty_page.py").write_text(MODULE)
        few, many = (settings(folder / f"app-{posts}", project, posts) for posts in (FEW, MANY))
        yield import_time(project, few)
        reference = few | {"REFERENCE_DATABASE": f"{few['APP_DIR']}/data/app.sqlite3"}
        (folder / "metrics").mkdir()
        counted = reference | {"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
        servers = {
            "service": Server(stack, project, "with_empty_page", few, folder / "service.log"),
            "dutiful": Server(stack, REFERENCE, "dutiful", counted, folder / "dutiful.log"),
            "bare": Server(stack, REFERENCE, "bare", reference, folder / "bare.log"),
            "million": Server(stack, project, "with_empty_page", many, folder / "million.log"),
        }
        pages = {name: re.sub(r"\?v=\w+", "", server.read("/")).split() for name, server in servers.items()}
        assert pages["service"] == pages["dutiful"] == pages["bare"], "the pages differ"
        yield from index(servers)
        yield empty_page(servers["service"], servers["bare"])


def import_time(project: Path, environ: dict[str, str]) -> Row:
    """In a process of its own each."""
    times: dict[str, list[float]] = {"web": [], "flask, sqlalchemy.orm": []}
    for _ in rounds(ROUNDS, "imports"):
        for name, found in times.items():
            printed = run(project, sys.executable, "-c", TIMED.format(name), environ=environ)
            found.append(1000 * float(printed.split()[-1]))
    return IMPORT.compared(*times.values())


def index(servers: dict[str, Server]) -> Iterator[Row]:
    """The blog's first page."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for server in servers.values():
        server.requests_per_second("/")  # The first requests load what is not measured.
    for _ in rounds(ROUNDS, "index"):
        for name, server in servers.items():
            rates[name].append(server.requests_per_second("/"))
    yield DUTIFUL.compared(rates["service"], rates["dutiful"])
    yield BARE.compared(rates["service"], rates["bare"])
    yield MILLION.compared(*([1000 / rate for rate in rates[name]] for name in ("million", "service")))


def empty_page(service: Server, bare: Server) -> Row:
    """What an empty page takes in the service, and not in bare Flask."""
    for server in (service, bare):
        server.requests_per_second("/empty")
    turns = rounds(ROUNDS, "empty page")
    return EMPTY.found(
        *(service.processor_microseconds("/empty") - bare.processor_microseconds("/empty") for _ in turns)
    )
