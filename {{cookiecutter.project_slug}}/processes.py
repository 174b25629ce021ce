"""Web, queue and scheduler run together: a free port, one terminal, one Ctrl-C."""

import contextlib
import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from honcho import manager
from honcho.compat import ProcessManager
from honcho.printer import Message, Printer

from config import Settings
from config.settings import Web

ROOT = Path(__file__).resolve().parent
PROCESSES = {"web": "-m gunicorn web:app", "queue": "queues.py", "scheduler": "scheduler.py"}
# What starts again by itself when code changes; gunicorn has a setting for that, web.reload.
RELOADED = ("queue", "scheduler")
CODE = ("app", "backup", "config", "database", "storage")
# Seconds until one that has ended by itself, by a mistake or by a kill, starts again.
RESTART = 5


class Leaders(ProcessManager):
    """Tells only the first process of each group to end; it tells its workers, and they must not hear it twice."""

    def terminate(self, pid: int) -> None:
        """Ask politely."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


class Terminal(Printer):
    """Prints with a prefix and colours; when there is nobody to read it any more, it is time to end."""

    output: TextIO

    def write(self, message: Message) -> None:
        """Print a line."""
        try:
            super().write(message)
            self.output.flush()
        except OSError:
            self.output = open(os.devnull, "w")  # noqa: PTH123, SIM115  (kept until the end)
            os.kill(os.getpid(), signal.SIGTERM)


def run_together(settings: Settings) -> int:
    """Run all processes until Ctrl-C, until the terminal is gone, or until one of them ends; returns the exit code."""
    require_free_port(settings.web)
    # Each process has its own time to end; honcho's is for one that does not keep to it.
    manager.KILL_WAIT = max(settings.queue.shutdown_timeout, settings.web.graceful_timeout) + 5
    together = manager.Manager(Terminal(sys.stdout))
    together._procmgr = Leaders()
    # What was relative to the caller's folder is not relative to the project's.
    environ = {**os.environ, "APP_DIR": str(settings.app_dir.path), "PYTHONUNBUFFERED": "1"}
    for name, arguments in PROCESSES.items():
        if settings.web.reload and name in RELOADED and find_spec("watchfiles"):
            arguments = f"processes.py {arguments} {manager.KILL_WAIT}"
        # honcho hands this to a shell: nothing in it comes from outside.
        command = f"exec {shlex.quote(sys.executable)} {arguments}"
        together.add_process(name, command, env=environ, cwd=str(ROOT))
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    together.loop()
    # Ctrl-C is how this is meant to end.
    return 0 if together.returncode == 130 else together.returncode or 0


def run_and_reload(script: str, patience: float) -> None:
    """Run a script of this folder, again when code changes, and again when it has ended by itself.

    Args:
        script: its file name.
        patience: seconds that it gets to end.
    """
    from watchfiles import PythonFilter, watch

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watched = [*(ROOT / folder for folder in CODE), *ROOT.glob("*.py")]
    while not stop.is_set():
        process = subprocess.Popen([sys.executable, str(ROOT / script)])  # noqa: S603  (fixed arguments)
        ended = None
        for changes in watch(
            *watched, watch_filter=PythonFilter(), stop_event=stop, rust_timeout=500, yield_on_timeout=True
        ):
            if process.poll() is not None and ended is None:
                ended = time.monotonic()
                ended_with = f"ended with exit code {process.returncode}"
                sys.stderr.write(f"{ended_with}; starts again in {RESTART} s, or when code changes\n")
            if changes or (ended and time.monotonic() - ended > RESTART):
                break
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()


def require_free_port(web: Web) -> None:
    """Exit with 1 and one line if `web.host` and `web.port` cannot be listened on."""
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((web.host, web.port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            where = f"{web.host}:{web.port}"
            sys.exit(f"web: {where} {reason}; set another one, for example PORT={web.port + 1}")


if __name__ == "__main__":
    run_and_reload(sys.argv[1], float(sys.argv[2]))
