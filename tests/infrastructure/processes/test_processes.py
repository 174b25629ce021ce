"""`python main.py`, `honcho start` and the processes they run: what starts, what ends them, and what they count."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from config import ROOT, Settings
from tests.conftest import PASSWORD
from tests.infrastructure.servers import free_port

PATIENCE = 60
PARTS = {"web", "queue", "scheduler"}
BIN = Path(sys.executable).parent


@pytest.fixture
def environment(settings: Settings, migrated_database: Path) -> Iterator[dict[str, str]]:
    """The variables of an installation with a migrated database, and nothing of the developer's own."""
    settings.app_dir.make()
    shutil.copyfile(migrated_database, settings.app_dir.database)
    with tempfile.TemporaryDirectory(prefix="processes-") as temporary:
        yield {
            "PATH": os.environ["PATH"],
            "TMPDIR": temporary,
            "APP_ENV": "testing",
            "APP_DIR": str(settings.app_dir.path),
            "PORT": str(free_port()),
            "APP_WEB__GRACEFUL_TIMEOUT": "2",
        }


def wait_for(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `condition` returns as soon as it is something."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


class Service:
    """Processes that were started together, and what they print."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> None:
        self.log, self.port = log, environment["PORT"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def parts(self) -> dict[str, int]:
        """The processes that honcho has started; each leads a session, which its own ones belong to."""
        found = re.findall(r"(\w+)\.1 started \(pid=(\d+)\)", self.printed)
        return {name: int(number) for name, number in found}

    def all_parts(self) -> dict[str, int]:
        return wait_for(lambda: parts if (parts := self.parts()).keys() >= PARTS else None)  # type: ignore[no-any-return]

    def left(self) -> list[int]:
        """What still runs of them."""
        sessions, found = set(self.parts().values()), []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = path.read_text().rpartition(") ")[2].split()[:4]
                if int(session) in sessions and state != "Z":
                    found.append(int(path.parent.name))
        return found

    def get(self, path: str, port: str = "") -> str:
        """A page; nothing while it cannot be had."""
        try:
            with urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=10) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def wait(self) -> int:
        """How it ended; nothing of it may be left."""
        code = self.process.wait(PATIENCE)
        assert self.left() == [], self.printed
        return code


@contextmanager
def running(command: list[str], environment: dict[str, str], tmp_path: Path, folder: Path = ROOT) -> Iterator[Service]:
    service = Service(command, environment, folder, tmp_path / "log")
    try:
        yield service
    except BaseException:
        print(service.printed)
        raise
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
        for number in service.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def main_py(environment: dict[str, str], tmp_path: Path) -> contextlib.AbstractContextManager[Service]:
    """From another folder, with a path to the app folder that is relative to it."""
    relative = {**environment, "APP_DIR": os.path.relpath(environment["APP_DIR"], tmp_path)}
    return running([sys.executable, str(ROOT / "main.py")], relative, tmp_path, tmp_path)


def test_main_runs_web_queue_and_scheduler_until_ctrl_c(environment: dict[str, str], tmp_path: Path) -> None:
    with main_py(environment, tmp_path) as service:
        assert '"status":"ok"' in wait_for(lambda: service.get("/readyz"))
        wait_for(lambda: "queue runs" in service.printed and "scheduler runs" in service.printed)
        # A link in a mail, which the queue writes, leads to the web process.
        browser, address = build_opener(HTTPCookieProcessor()), f"http://127.0.0.1:{service.port}/register"
        [token] = re.findall(r'csrf_token"[^>]*value="([^"]+)"', browser.open(address).read().decode())
        fields = {"csrf_token": token, "username": "ada", "email": "ada@example.org", "password": PASSWORD}
        browser.open(address, urlencode(fields).encode())
        [mail] = wait_for(lambda: list(Path(environment["APP_DIR"], "work/mail/new").glob("*")))
        assert f"http://127.0.0.1:{service.port}/account/link/confirm/" in mail.read_text()
        checked = subprocess.run(
            [sys.executable, "main.py", "check"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout
        assert re.search(r"(?m)^worker +ok +one has run a job", checked.stdout)
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0
    assert "Traceback" not in service.printed
    # The folder of numbers is gone too.
    assert not list(Path(environment["TMPDIR"]).iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_main_ends_all_when_it_is_told_to_or_its_terminal_is_closed(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with main_py(environment, tmp_path) as service:
        service.all_parts()
        service.process.send_signal(number)
        service.process.wait(PATIENCE)
        # After SIGHUP nothing is printed any more.
        assert service.left() == []


@pytest.mark.parametrize("part", sorted(PARTS))
def test_one_that_ends_ends_the_others(environment: dict[str, str], tmp_path: Path, part: str) -> None:
    with main_py(environment, tmp_path) as service:
        os.kill(service.all_parts()[part], signal.SIGKILL)
        assert service.wait() != 0


def test_a_port_that_is_taken_is_said_and_ends_all(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", int(environment["PORT"]))), main_py(environment, tmp_path) as service:
        assert service.wait() == 1
    assert f"Connection in use: ('127.0.0.1', {environment['PORT']})" in service.printed


def test_wrong_settings_are_a_line_and_nothing_starts(environment: dict[str, str], tmp_path: Path) -> None:
    with main_py({**environment, "APP_WEB__WORKERS": "many"}, tmp_path) as service:
        assert service.wait() == 2
    assert service.printed == ("environment variable APP_WEB__WORKERS: web.workers: expected int, found 'many'\n")


def test_gunicorn_refuses_unsafe_settings_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    variables = {**environment, "APP_ENV": "production", "SECRET_KEY": "change-me"}
    with running([sys.executable, "web.py"], variables, tmp_path) as service:
        assert service.process.wait(PATIENCE) == 2
    [line] = service.printed.splitlines()
    assert "app.secret_key: found a weak" in line


def test_ctrl_c_is_left_to_gunicorns_master(environment: dict[str, str], tmp_path: Path) -> None:
    """A terminal sends it to all processes. A worker that is told once more, by its master, can wait for itself."""
    with running([sys.executable, "web.py"], {**environment, "APP_WEB__WORKERS": "1"}, tmp_path) as service:
        wait_for(lambda: service.get("/livez"))
        master = service.process.pid
        [worker] = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        ignored = re.findall(r"SigIgn:\s+(\w+)", Path(f"/proc/{worker}/status").read_text())
        assert int(ignored[0], 16) & 1 << signal.SIGINT - 1
        for process in (int(worker), master):
            os.kill(process, signal.SIGINT)
        assert service.process.wait(PATIENCE) == 0
    assert "SIGKILL" not in service.printed


def test_honcho_starts_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "honcho", "start"]
    with running(command, {**environment, "PATH": f"{BIN}:{environment['PATH']}"}, tmp_path) as service:
        assert '"status":"ok"' in wait_for(lambda: service.get("/readyz"))
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 130


def test_in_development_queue_and_scheduler_start_again_when_code_changes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns("instance", "tests", "__pycache__", ".*", "dist")
    shutil.copytree(ROOT, project, ignore=ignored)
    development = {**environment, "APP_ENV": "development", "SECRET_KEY": "for this test alone"}

    def starts() -> tuple[int, int]:
        return service.printed.count("queue runs"), service.printed.count("scheduler runs")

    with running([sys.executable, "main.py"], development, tmp_path, project) as service:
        wait_for(lambda: min(starts()) == 1)
        web = wait_for(lambda: service.get("/livez"))

        # A change that comes before anything watches is none, so there may have to be another.
        for change in range(6):
            (project / "app" / "new.py").write_text(f'"""{change}"""')
            with contextlib.suppress(AssertionError):
                wait_for(lambda: min(starts()) > 1, PATIENCE / 4)
                break
        assert min(starts()) > 1
        assert wait_for(lambda: service.get("/livez")) == web
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0


def numbers_in(page: str) -> dict[tuple[str, ...], float]:
    """Each number by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_all_workers_of_gunicorn_count_together_and_begin_at_0(environment: dict[str, str], tmp_path: Path) -> None:
    variables = {**environment, "APP_WEB__WORKERS": "3", "APP_WEB__THREADS": "1"}
    for _ in range(2):
        with running([sys.executable, "web.py"], variables, tmp_path) as service:
            wait_for(lambda: service.get("/livez"))
            asked = 0
            while asked == 0 or len(list(Path(environment["TMPDIR"]).glob("metrics-*/counter_*.db"))) < 2:
                assert service.get("/version")
                asked += 1
            found = numbers_in(service.get("/metrics"))
            assert found["http_requests_total", "GET", "/version", "200"] == asked
            service.process.terminate()
            service.process.wait(PATIENCE)
        assert not list(Path(environment["TMPDIR"]).iterdir())


def test_workers_of_the_queue_count_by_dramatiqs_own_variables(environment: dict[str, str], tmp_path: Path) -> None:
    port = str(free_port())
    variables = {**environment, "dramatiq_prom_port": port, "APP_QUEUE__PROCESSES": "2", "APP_QUEUE__THREADS": "1"}
    code = "import app; app.create_app(); [app.jobs.do_nothing.send() for _ in range(40)]"
    with running([sys.executable, "queues.py"], variables, tmp_path) as service:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
        counted = "dramatiq_messages_total", "do_nothing", "default"
        wait_for(lambda: numbers_in(service.get("/metrics", port)).get(counted) == 40)
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
