"""`make demo`: a project with the default answers, generated, set up and served.

With `--check` it goes into a temporary folder and on a free port, is asked for its pages, and stops by itself: exit 0
if all of them came, else 1.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from baking import clean_environment
from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).resolve().parent.parent
UV = TEMPLATE / ".venv/bin/uv"
PAGES = {
    "/": "<h1>",
    "/register": 'name="username"',
    "/login": 'name="password"',
    "/static/style.css": "body",
    "/livez": '"ok"',
    "/readyz": '"ok"',
    "/version": '"service"',
}
PATIENCE = 180


def generate(folder: Path) -> Path:
    """A project with the default answers in `folder`; one that is there is written anew."""
    return Path(cookiecutter(str(TEMPLATE), no_input=True, output_dir=str(folder), overwrite_if_exists=True))


def make_dev(project: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """`make dev`, running, in a process group of its own."""
    command = ["make", "dev", f"UV={UV}"]
    return subprocess.Popen(command, cwd=project, env={**clean_environment(), **environ}, start_new_session=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str) -> tuple[int, str]:
    """Status and text of a page; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> bool:
    """Whether the service reported itself ready before it ended or patience did."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if fetch(f"{address}/readyz")[0] == 200:
            return True
        time.sleep(0.1)
    return False


def stop(process: subprocess.Popen[bytes]) -> bool:
    """Press Ctrl-C; whether everything has ended by itself after a while."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def check() -> int:
    """Generate, serve, ask for all pages, stop."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        process = make_dev(generate(Path(folder)), {"PORT": str(port)})
        try:
            ready = wait_until_ready(process, address)
            wrong = [] if ready else ["the service did not become ready"]
            for path, expected in PAGES.items() if ready else ():
                status, text = fetch(address + path)
                print(f"{status} {path}")
                if status != 200 or expected not in text:
                    wrong.append(f"{path}: expected 200 and {expected!r}, found {status}")
        finally:
            stopped = stop(process)
        if not stopped or fetch(f"{address}/livez")[0]:
            wrong.append("Ctrl-C did not stop everything")
    print("\n".join(wrong) or "demo: all pages answered, and everything stopped")
    return 1 if wrong else 0


def serve() -> int:
    """Generate and serve until Ctrl-C."""
    project = generate(TEMPLATE / "build" / "demo")
    process = make_dev(project, {})
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 0 if stop(process) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="ask for the pages and stop")
    sys.exit(check() if parser.parse_args().check else serve())
