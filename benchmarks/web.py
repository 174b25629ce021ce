"""The blog's first page and an empty one, beside two Flask and sqlite3 applications that are written by hand.

`python -m benchmarks.web` runs it. `reference/bare.py` renders the same page, but for white space;
`reference/dutiful.py` has the service's duties as well: a JSON log line, a request id, security headers, and metrics.
gunicorn serves each with one worker and one thread, and wrk asks them in turns, so that the machine is the same to all;
figures are medians. It needs Linux.
"""

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

TEMPLATE = Path(__file__).resolve().parent.parent
REFERENCE = TEMPLATE / "benchmarks/reference"
HOST = "127.0.0.1"
ROUNDS = 15
SECONDS = 2
PATIENCE = 60
# Requests that the service answers while each reference answers one, at least: DESIGN, section 4.
GOALS = {"dutiful": 0.9, "bare": 0.7}
# Microseconds of the processor that an empty page may take beyond the bare reference.
WIRING = 250

# The service with an empty page, and ten posts to show; gunicorn serves it instead of web.py.
MODULE = """
from web import app

app.add_url_rule("/empty", "empty", lambda: "empty")
"""
SEED = """
from app import create_app
from app.accounts import User
from app.blog import Post
from app.services import transaction

with transaction(create_app()) as session:
    session.add(user := User(username="ada", email="ada@example.org", password_hash="-"))
    session.flush()
    session.add_all(Post(author_id=user.id, title=f"post number {n}", body="words " * 100) for n in range(10))
"""


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
                sys.exit(f"{self.application}: does not answer")
            time.sleep(0.1)

    def requests_per_second(self, path: str) -> float:
        command = ["wrk", "-t1", "-c4", f"-d{SECONDS}s", f"http://{HOST}:{self.port}{path}"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "Non-2xx" not in printed, printed
        return float(printed.partition("Requests/sec:")[2].split()[0])

    def processor_seconds(self) -> float:
        """What the worker has used of the processor, which other programs on this machine change little."""
        [worker] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        user, system = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def serve(stack: ExitStack, folder: Path) -> dict[str, Server]:
    """The service and both references, on one database."""
    bake = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--accept-hooks", "no"]
    subprocess.run([*bake, "-o", str(folder), "project_slug=measured"], check=True, stdout=subprocess.DEVNULL)
    project = folder / "measured"
    (project / "with_empty_page.py").write_text(MODULE)
    environ = {
        "PATH": os.environ["PATH"],
        "APP_ENV": "production",
        "APP_DIR": str(folder / "app"),
        "REFERENCE_DATABASE": str(folder / "app/data/app.sqlite3"),
    }
    for command in (("main.py", "appdir", "make"), ("main.py", "db", "upgrade"), ("-c", SEED)):
        subprocess.run([sys.executable, *command], cwd=project, env=environ, check=True, capture_output=True)
    counted = folder / "metrics"
    counted.mkdir()
    multiprocess = environ | {"PROMETHEUS_MULTIPROC_DIR": str(counted)}
    return {
        "service": Server(stack, project, "with_empty_page", environ, folder / "service.log"),
        "dutiful": Server(stack, REFERENCE, "dutiful", multiprocess, folder / "dutiful.log"),
        "bare": Server(stack, REFERENCE, "bare", environ, folder / "bare.log"),
    }


def main() -> None:
    """Print the table; exit with 1 if a goal is missed."""
    if not shutil.which("wrk"):
        sys.exit("needs wrk: apt install wrk")
    rates: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="web-bench-")))
        servers = serve(stack, folder)
        pages = {name: re.sub(r"\?v=\w+", "", server.read("/")).split() for name, server in servers.items()}
        assert pages["service"] == pages["dutiful"] == pages["bare"], "the pages differ"
        for path in ("/", "/empty"):
            for server in servers.values():
                server.read(path)
                server.requests_per_second(path)  # Nobody measures what the first requests load.
            rates[path], costs[path] = {name: [] for name in servers}, {name: [] for name in servers}
            for _ in range(ROUNDS):
                for name, server in servers.items():
                    used = server.processor_seconds()
                    rates[path][name].append(server.requests_per_second(path))
                    took = server.processor_seconds() - used
                    costs[path][name].append(took / rates[path][name][-1] / SECONDS * 1e6)
    missed = []
    print(f"{'page':8} {'application':12} {'requests/s':>10} {'CPU µs a request':>17} {'service is':>11} {'goal':>7}")
    for path, found in rates.items():
        cpu = {name: statistics.median(values) for name, values in costs[path].items()}
        for name, values in found.items():
            # Of each turn on its own, because the machine is not equally fast in all of them.
            ratio = statistics.median(ours / other for ours, other in zip(found["service"], values, strict=True))
            goal = GOALS.get(name) if path == "/" else None
            if goal and ratio < goal:
                missed.append(f"{path}: {ratio:.2f} x {name}, expected {goal} x")
            goal_text = f"{goal} x" if goal else ""
            rate = statistics.median(values)
            print(f"{path:8} {name:12} {rate:10.0f} {cpu[name]:17.0f} {ratio:9.2f} x {goal_text:>7}")
        if path == "/empty" and (more := cpu["service"] - cpu["bare"]) > WIRING:
            missed.append(f"{path}: {more:.0f} µs more than bare, expected at most {WIRING}")
    sys.exit("\n".join(missed) or None)


if __name__ == "__main__":
    main()
