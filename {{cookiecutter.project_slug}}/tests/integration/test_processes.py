"""The entry points, as processes where that is what matters."""

import contextlib
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
import svcs
from click.testing import CliRunner
from dramatiq import cli as dramatiq_cli
from flask import Flask
from flask.cli import cli as flask_cli
from jinja2 import ChoiceLoader, FileSystemLoader
from sqlalchemy import event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import processes
from app import create_app
from app.ops.jobs import remove_expired
from app.services import transaction
from config import Settings
from database.rate_limits import RateLimit
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
ENTRY_POINTS = ["main.py", "web.py", "queues.py", "scheduler.py", "gunicorn.conf.py"]


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture
def environment(settings: Settings, migrated_database: Path, port: int) -> dict[str, str]:
    """The variables of an installation with a migrated database, and nothing of the developer's own."""
    shutil.copyfile(migrated_database, settings.app_dir.database)
    python = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("PYTHON")}
    return {
        **python,
        "APP_ENV": "testing",
        "APP_DIR": str(settings.app_dir.path),
        "PORT": str(port),
        # A worker of gunicorn that is told to stop in the moment of its fork does not hear it.
        "APP_WEB__GRACEFUL_TIMEOUT": "5",
    }


@pytest.fixture
def here(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Gives this process those variables, for entry points that need no process of their own."""
    made: list[Flask] = []

    def create_and_remember(settings: Settings) -> Flask:
        made.append(create_app(settings))
        return made[-1]

    with monkeypatch.context() as here:
        here.setattr(os, "environ", environment)
        here.setattr(sys, "argv", ["entry point"])
        here.setattr("app.create_app", create_and_remember)
        yield here
    for app in made:
        svcs.flask.close_registry(app)


def wait_for(condition: Callable[[], Any]) -> Any:
    """What `condition` returns as soon as it is something."""
    deadline = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def end_group(number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


class Service:
    """`python main.py`, started from another folder, and what it prints."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.log = folder / "log"
        self.port = environment["PORT"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py")], env=environment, cwd=folder, stdout=log, stderr=log
            )

    def parts(self) -> dict[str, int]:
        """The processes it has started."""
        return {name: int(number) for name, number in re.findall(r"(\w+) started \(pid=(\d+)\)", self.log.read_text())}

    def get(self, path: str) -> int:
        """The status of a page; 0 while nobody answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return int(response.status)
        except OSError:
            return 0

    def wait(self) -> int:
        """How it ended; nothing of it may be left."""
        code = self.process.wait(timeout=20)
        assert not any(is_alive(part) for part in self.parts().values()), self.log.read_text()
        return code


@contextmanager
def running(environment: dict[str, str], folder: Path) -> Iterator[Service]:
    service = Service(environment, folder)
    try:
        yield service
        wait_for(lambda: service.process.poll() is not None)
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
        for part in service.parts().values():
            end_group(part)


@pytest.mark.slow
def test_main_runs_web_queue_and_scheduler_until_ctrl_c(
    environment: dict[str, str], app: Flask, tmp_path: Path
) -> None:
    with transaction(app) as session:
        session.add(RateLimit(key="expired", hits=1, expires=0))
        remove_expired.send("slot")

    def is_cleaned_up() -> bool:
        with transaction(app) as session:
            return session.scalar(select(RateLimit)) is None

    with running({**environment, "dramatiq_worker_timeout": "50"}, tmp_path) as service:
        assert wait_for(lambda: service.get("/livez")) == 200
        assert service.get("/readyz") == 200
        wait_for(is_cleaned_up)
        wait_for(lambda: "scheduler runs" in service.log.read_text())
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0
    printed = service.log.read_text()
    assert "Traceback" not in printed
    # Each has ended by itself.
    assert len(re.findall(r"stopped \(rc=0\)", printed)) == 3


@pytest.mark.slow
def test_main_stops_all_when_its_terminal_is_closed(environment: dict[str, str], tmp_path: Path) -> None:
    with running(environment, tmp_path) as service:
        wait_for(lambda: len(service.parts()) == 3)
        service.process.send_signal(signal.SIGHUP)
        assert service.wait() == 143


@pytest.mark.slow
def test_a_worker_of_the_queue_whose_parent_dies_while_it_starts_ends_too(
    environment: dict[str, str], tmp_path: Path
) -> None:
    variables = {**environment, "APP_QUEUE__PROCESSES": "2", "APP_QUEUE__SHUTDOWN_TIMEOUT": "1"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, str(ROOT / "queues.py")], env=variables, stdout=log, stderr=log, start_new_session=True
        ) as queue,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(end_group, queue.pid)
        children = Path(f"/proc/{queue.pid}/task/{queue.pid}/children")
        workers = wait_for(lambda: found if len(found := children.read_text().split()) > 1 else None)
        queue.kill()
        queue.wait()
        wait_for(lambda: not any(is_alive(int(worker)) for worker in workers))


@pytest.mark.slow
def test_main_stops_all_when_one_dies(environment: dict[str, str], tmp_path: Path) -> None:
    with running(environment, tmp_path) as service:
        parts = wait_for(lambda: parts if len(parts := service.parts()) == 3 else None)
        assert parts.keys() == {"web", "queue", "scheduler"}
        os.kill(parts["scheduler"], signal.SIGKILL)
        assert service.wait() != 0


def test_gunicorn_itself_refuses_unsafe_settings_in_one_line(environment: dict[str, str]) -> None:
    unsafe = {**environment, "APP_ENV": "production", "SECRET_KEY": "change-me"}
    command = [sys.executable, "-m", "gunicorn", "web:app"]
    result = subprocess.run(command, env=unsafe, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "config/app.yaml: app.secret_key: found a weak or well-known secret" in result.stderr


@pytest.mark.parametrize("file", ENTRY_POINTS)
def test_no_entry_point_starts_with_unsafe_settings(
    here: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    here.setenv("APP_ENV", "production")
    here.setenv("SECRET_KEY", "change-me")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "python main.py appdir make" in line


@pytest.mark.parametrize("file", ["web.py", "queues.py", "scheduler.py"])
def test_a_service_that_cannot_be_used_is_one_line(
    here: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    here.setenv("QUEUE_URL", "sqs://queue")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("config/queue.yaml: queue.url: found 'sqs://queue'")


@pytest.mark.parametrize("file", ["queues.py", "scheduler.py"])
def test_nothing_works_on_tables_that_are_not_there(
    here: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    settings.app_dir.database.unlink()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert ended.value.code == 2
    assert "Run: python main.py db upgrade" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["main.py", "web.py"])
def test_a_port_in_use_is_one_line(here: pytest.MonkeyPatch, port: int, file: str) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / file), run_name="__main__")
    assert ended.value.code == f"web: 127.0.0.1:{port} is in use; set another one, for example PORT={port + 1}"


def test_web_becomes_gunicorn_in_the_projects_folder(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here.chdir(tmp_path)
    became: list[Any] = []
    here.setattr(os, "execv", lambda *arguments: became.extend(arguments))
    runpy.run_path(str(ROOT / "web.py"), run_name="__main__")
    assert became == [sys.executable, [sys.executable, "-m", "gunicorn", "web:app"]]
    assert Path.cwd() == ROOT


def test_gunicorn_takes_its_settings_from_the_projects(here: pytest.MonkeyPatch, port: int) -> None:
    here.setenv("APP_WEB__WORKERS", "3")
    here.setenv("APP_WEB__RELOAD", "true")
    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    assert gunicorn["bind"] == f"127.0.0.1:{port}"
    assert (gunicorn["workers"], gunicorn["reload"], gunicorn["preload_app"]) == (3, True, False)


def test_on_systemd_s_socket_gunicorn_takes_only_the_connections_that_it_can_answer_soon(
    here: pytest.MonkeyPatch,
) -> None:
    here.setenv("APP_WEB__THREADS", "3")
    assert "worker_connections" not in runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    here.setenv("LISTEN_FDS", "1")
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["worker_connections"] == 6


@pytest.mark.parametrize(("reload", "compiled"), [("false", True), ("true", False)])
def test_no_visitor_waits_until_templates_are_compiled(
    here: pytest.MonkeyPatch, make_app: Callable[[], Flask], tmp_path: Path, reload: str, compiled: bool
) -> None:
    here.setenv("APP_WEB__RELOAD", reload)
    templates = (app := make_app()).jinja_env
    templates.cache = {}
    names = {name for name in templates.list_templates() if name.endswith(".html")}
    # Not all that lies beside templates is one.
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    templates.loader = ChoiceLoader([templates.loader, FileSystemLoader(tmp_path)])  # type: ignore[list-item]

    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    gunicorn["on_starting"](SimpleNamespace(app=SimpleNamespace(wsgi=lambda: app)))

    assert {name for _, name in templates.cache} == (names if compiled else set())


def test_no_visitor_waits_until_models_are_mapped(here: pytest.MonkeyPatch, make_app: Callable[[], Flask]) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)

    mapped: list[type[Note]] = []
    event.listen(Note, "mapper_configured", lambda _, model: mapped.append(model))
    app = make_app()
    try:
        gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
        gunicorn["on_starting"](SimpleNamespace(app=SimpleNamespace(wsgi=lambda: app)))
    finally:
        Base.registry.dispose()
    assert mapped == [Note]


def test_queues_takes_its_settings_from_the_projects(here: pytest.MonkeyPatch) -> None:
    here.setenv("APP_QUEUE__THREADS", "3")
    here.setenv("APP_QUEUE__SHUTDOWN_TIMEOUT", "5")
    given: list[Any] = []
    here.setattr(dramatiq_cli, "main", given.append)
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "queues.py"), run_name="__main__")
    [arguments] = given
    assert (arguments.broker, arguments.path) == ("queues", [str(ROOT)])
    assert (arguments.processes, arguments.threads, arguments.worker_shutdown_timeout) == (1, 3, 5000)


@pytest.mark.parametrize("file", ["queues.py", "scheduler.py"])
def test_systemd_is_told_once_the_app_is_there(
    here: pytest.MonkeyPatch, settings: Settings, tmp_path: Path, file: str
) -> None:
    here.setattr(dramatiq_cli, "main", lambda _: 0)
    here.setattr("database.schedule.run", lambda *_: None)
    here.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
        systemd.bind("notify")
        here.setenv("NOTIFY_SOCKET", "notify")
        runpy.run_path(str(ROOT / file))
        with pytest.raises(BlockingIOError):
            systemd.recv(100)

        with contextlib.suppress(SystemExit):
            runpy.run_path(str(ROOT / file), run_name="__main__")

        assert systemd.recv(100) == b"READY=1"


def test_the_queue_s_workers_do_not_speak_to_systemd(here: pytest.MonkeyPatch) -> None:
    here.setenv("NOTIFY_SOCKET", "@nobody")
    inherited: list[bool] = []
    here.setattr(dramatiq_cli, "main", lambda _: inherited.append("NOTIFY_SOCKET" in os.environ))
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "queues.py"), run_name="__main__")
    assert inherited == [False]


def test_flask_finds_the_app(here: pytest.MonkeyPatch) -> None:
    here.delitem(sys.modules, "web", raising=False)
    result = CliRunner().invoke(flask_cli, ["--app", "web", "routes"])
    here.delitem(sys.modules, "web")
    assert result.exit_code == 0
    assert re.search(r"accounts\.login +GET, POST +/login", result.output)


def test_help_lists_the_commands_in_sections(here: pytest.MonkeyPatch) -> None:
    from main import cli

    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    sections = [line for line in lines if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert sections[:3] == ["Options:", "Run:", "Set up:"]
    start = lines.index("Set up:")
    assert {"appdir", "config", "db"} <= {line.split()[0] for line in lines[start + 1 :] if line.strip()}


def test_a_wrong_setting_is_a_line_on_the_command_line_too(here: pytest.MonkeyPatch) -> None:
    from main import cli

    here.setenv("APP_WEB__WORKERS", "many")
    result = CliRunner().invoke(cli, ["config", "show"])
    assert result.exit_code == 2
    [line] = result.output.splitlines()
    assert line.startswith("environment variable APP_WEB__WORKERS: web.workers: expected int")


@pytest.mark.slow
def test_in_development_a_process_starts_again_when_code_changes_or_when_it_was_killed(tmp_path: Path) -> None:
    for folder in processes.CODE:
        (tmp_path / folder).mkdir()
    notes, job = tmp_path / "notes", tmp_path / "job.py"
    notes.touch()
    job.write_text(
        "import os, time, pathlib\n"
        f"with open({str(notes)!r}, 'a') as notes: notes.write(f'{{os.getpid()}}\\n')\n"
        "time.sleep(60)\n"
    )
    code = f"import pathlib, processes; processes.ROOT = pathlib.Path({str(tmp_path)!r}); processes.RESTART = 0.1; "
    code += "processes.run_and_reload('job.py', 5)"
    reloader = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)

    def started(times: int) -> int:
        deadline = time.monotonic() + 20
        while len(pids := notes.read_text().split()) < times:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return int(pids[-1])

    try:
        os.kill(started(1), signal.SIGKILL)
        started(2)
        # A change that comes before anybody watches is none.
        deadline = time.monotonic() + 20
        while len(notes.read_text().split()) < 3:
            assert time.monotonic() < deadline
            (tmp_path / "app" / "new.py").write_text(str(time.monotonic()))
            time.sleep(0.5)
        last = started(3)
    finally:
        reloader.terminate()
    assert reloader.wait(10) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
