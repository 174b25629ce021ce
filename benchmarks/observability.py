"""What log lines and metrics cost: requests a second of the blog's first page, with and without them.

`python -m benchmarks.observability` runs it. gunicorn serves the generated service with one worker and one thread, so
that the time between two answers is what one of them costs; wrk asks for a page with ten posts. All variants run at
once, are asked in turns, and the figures are medians. It needs Linux.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

TEMPLATE = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
ROUNDS = 40
SECONDS = 1
POSTS = 10
PATIENCE = 60
FLOOR = 0.9

# What each variant of the service goes without.
VARIANTS = {"neither": ("log", "metrics"), "log lines": ("metrics",), "metrics": ("log",), "both": ()}

# The service without some of its hooks: a WSGI module that gunicorn serves instead of web.py.
MODULE = """
import os
from web import app

functions = {"log": "log", "metrics": "count"}
left_out = [functions[name] for name in os.environ["LEFT_OUT"].split(",") if name]
hooks = app.after_request_funcs[None]
hooks[:] = [hook for hook in hooks if getattr(hook, "__name__", "") not in left_out]
"""

SEED = f"""
from app import create_app
from app.accounts import User
from app.blog.models import Post
from app.services import transaction

with transaction(create_app()) as session:
    session.add(user := User(username="ada", email="ada@example.org", password_hash="-"))
    session.flush()
    session.add_all(Post(author_id=user.id, title=f"post number {{n}}", body="words " * 100) for n in range({POSTS}))
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether the page is there, with its posts."""
    with suppress(OSError), urlopen(f"http://{HOST}:{port}/", timeout=5) as response:
        return bool(response.read().count(b"post number") >= POSTS)
    return False


def requests_per_second(port: int) -> float:
    """What wrk measures."""
    command = ["wrk", "-t1", "-c4", f"-d{SECONDS}s", f"http://{HOST}:{port}/"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in printed, printed
    return float(printed.partition("Requests/sec:")[2].split()[0])


def processor_seconds(server: int) -> float:
    """What gunicorn's worker has used of the processor, which other programs on this machine change little."""
    [worker] = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    user, system = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table; exit with 1 if log lines and metrics cost too much."""
    if not shutil.which("wrk"):
        sys.exit("needs wrk: apt install wrk")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="observability-bench-")))
        bake = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--accept-hooks", "no"]
        subprocess.run([*bake, "-o", str(folder), "project_slug=my_service"], check=True, stdout=subprocess.DEVNULL)
        project = folder / "my_service"
        (project / "measured.py").write_text(MODULE)
        ports, servers = dict[str, int](), dict[str, int]()
        rates = {name: list[float]() for name in VARIANTS}
        costs = {name: list[float]() for name in VARIANTS}
        for number, (name, left_out) in enumerate(VARIANTS.items()):
            ports[name] = free_port()
            environment = {
                "PATH": os.environ["PATH"],
                "APP_ENV": "testing",
                "APP_DIR": str(folder / f"app-{number}"),
                "PORT": str(ports[name]),
                "APP_WEB__WORKERS": "1",
                "APP_WEB__THREADS": "1",
                "APP_LOGGING__HANDLERS__CONSOLE__FORMATTER": "json",
                "LEFT_OUT": ",".join(left_out),
            }
            log = stack.enter_context((folder / f"log-{number}").open("wb"))
            for command in (("main.py", "appdir", "make"), ("main.py", "db", "upgrade"), ("-c", SEED)):
                subprocess.run(
                    [sys.executable, *command], cwd=project, env=environment, check=True, stdout=log, stderr=log
                )
            server = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "measured:app"], cwd=project, env=environment, stderr=log
            )
            servers[name] = server.pid
            stack.callback(server.wait)
            stack.callback(server.terminate)
        for port in ports.values():
            wait_for(lambda port=port: answers(port))  # type: ignore[misc]
            requests_per_second(port)  # Nobody measures what the first requests load.
        names = list(VARIANTS)
        for turn in range(ROUNDS):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                used = processor_seconds(servers[name])
                rates[name].append(requests_per_second(ports[name]))
                costs[name].append((processor_seconds(servers[name]) - used) / rates[name][-1] / SECONDS * 1e6)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{'blog index, 10 posts':22} {'requests/s':>10} {'ratio':>9} {'CPU µs per request':>19} {'more':>5}")
    ratios = {}
    for name in VARIANTS:
        # Of each turn on its own, because the machine is not equally fast in all of them.
        ratios[name] = statistics.median(rate / bare for rate, bare in zip(rates[name], rates["neither"], strict=True))
        cost = statistics.median(costs[name])
        more = statistics.median(cost - bare for cost, bare in zip(costs[name], costs["neither"], strict=True))
        print(f"{name:22} {medians[name]:10.0f} {ratios[name]:7.3f} x {cost:19.0f} {more:5.0f}")
    if ratios["both"] < FLOOR:
        sys.exit(f"both: expected at least {FLOOR} x")


if __name__ == "__main__":
    main()
