"""The numbers at /metrics: what they count, who may see them, and that they add up over processes."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import dramatiq
import pytest
import svcs
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from app.metrics import overdue, share
from app.ops.jobs import remove_expired
from app.services import transaction
from config import ConfigError, Settings, project_version
from database.schedule import CatchUp, KnownSchedule, Schedule
from tests.conftest import free_port

MakeApp = Callable[..., Flask]
Numbers = dict[tuple[str, ...], float]
TOKEN = secrets.token_urlsafe()


def numbers_in(page: str) -> Numbers:
    """Each number by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.fixture
def numbers(client: Any) -> Callable[[], Numbers]:
    """The numbers of now."""
    return lambda: numbers_in(client.get("/metrics").text)


Scrape = Callable[[], Numbers]


def test_requests_are_counted_by_route_and_not_by_path(client: Any, numbers: Scrape) -> None:
    for path in ("/profile/ada", "/profile/grace", "/nowhere/1", "/nowhere/2", "/login"):
        client.get(path)
    client.post("/login")
    found = numbers()
    assert {key: value for key, value in found.items() if key[0] == "http_requests_total"} == {
        ("http_requests_total", "GET", "/profile/<username>", "404"): 2,
        ("http_requests_total", "GET", "unmatched", "404"): 2,
        ("http_requests_total", "GET", "/login", "200"): 1,
        ("http_requests_total", "POST", "/login", "400"): 1,
    }
    assert found["http_request_duration_seconds_count", "/login"] == 2
    assert 0 < found["http_request_duration_seconds_sum", "/login"] < 10


def test_methods_that_nobody_knows_are_one_number(client: Any, numbers: Scrape) -> None:
    for method in ("BREW", "X" * 100, "PROPFIND"):
        client.open("/nowhere", method=method)
    counted = [key for key in numbers() if key[0] == "http_requests_total"]
    assert counted == [("http_requests_total", "other", "unmatched", "404")]


def test_metrics_do_not_count_themselves(numbers: Scrape) -> None:
    numbers()
    assert not [key for key in numbers() if key[0].startswith("http_")]


def test_an_app_counts_only_what_it_did_itself(make_app: MakeApp) -> None:
    first, second = (make_app().test_client() for _ in range(2))
    first.get("/login")
    assert not [key for key in numbers_in(second.get("/metrics").text) if key[0].startswith("http_")]


def test_jobs_are_counted_by_how_they_ended(app: Flask, numbers: Scrape, work: Callable[[], int]) -> None:
    @dramatiq.actor(max_retries=0)
    def break_down() -> None:
        raise RuntimeError

    try:
        for _ in range(2):
            break_down.send()
        remove_expired.send("slot")
        remove_expired.send_with_options(args=("slot",), max_age=1, delay=20)
        work()
        found = numbers()
    finally:
        del dramatiq.get_broker().actors["break_down"]
    assert {key: value for key, value in found.items() if key[0] == "jobs_total"} == {
        ("jobs_total", "break_down", "failed", "default"): 2,
        ("jobs_total", "remove_expired", "done", "default"): 1,
        ("jobs_total", "remove_expired", "skipped", "default"): 1,
    }
    assert found["job_duration_seconds_count", "break_down"] == 2
    assert found["job_duration_seconds_count", "remove_expired"] == 1
    assert found["queue_messages", "default", "failed"] == 3


def test_queues_are_looked_at_when_somebody_asks(app: Flask, numbers: Scrape) -> None:
    assert (numbers()["queue_messages", "default", "waiting"], numbers()["queue_oldest_seconds", "default"]) == (0, 0)
    remove_expired.send("slot")
    remove_expired.send_with_options(args=("slot",), delay=60_000)
    with transaction(app) as session:
        session.execute(text("UPDATE queue_message SET due = due - 100"))
    found = numbers()
    assert (found["queue_messages", "default", "waiting"], found["queue_messages", "default", "delayed"]) == (2, 0)
    assert 99 < found["queue_oldest_seconds", "default"] < 160


def test_a_schedule_that_no_scheduler_deals_with_lags(app: Flask, numbers: Scrape) -> None:
    assert numbers()["schedule_lag_seconds", "remove_expired"] == 0
    from database.schedule import SCHEDULES

    schedule = SCHEDULES["remove_expired"]
    slot = schedule.latest_slot(datetime.now(ZoneInfo("UTC")))
    with transaction(app) as session:
        before = schedule.latest_slot(slot - timedelta(days=2))
        session.add(KnownSchedule(name="remove_expired", definition=schedule.definition, dealt_with=before))
    assert 86400 <= numbers()["schedule_lag_seconds", "remove_expired"] < 3 * 86400


MIDNIGHT = datetime(2026, 5, 1, tzinfo=ZoneInfo("UTC"))
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("dealt_with", "changed", "catch_up", "hours"),
    [
        (MIDNIGHT, False, "latest", 0),
        (MIDNIGHT - 5 * HOUR, False, "latest", 4.5),
        (MIDNIGHT - 5 * HOUR, False, "all", 4.5),
        # Its slots are not sent later, so that nothing is overdue.
        (MIDNIGHT - 5 * HOUR, False, "none", 0),
        # They begin with the process that looks, an hour and a half ago.
        (None, False, "latest", 0.5),
        (MIDNIGHT - 5 * HOUR, True, "latest", 0.5),
    ],
)
def test_lag_begins_with_the_first_slot_that_nobody_sent(
    dealt_with: datetime | None, changed: bool, catch_up: CatchUp, hours: float
) -> None:
    schedule = Schedule(remove_expired, HOUR, ZoneInfo("UTC"), catch_up, timedelta(0))
    definition = "another one" if changed else schedule.definition
    known = KnownSchedule(name="x", definition=definition, dealt_with=dealt_with) if dealt_with else None
    now = MIDNIGHT + HOUR / 2
    assert overdue(schedule, known, now - 1.5 * HOUR, now) == hours * 3600


def test_connections_are_counted(app: Flask, numbers: Scrape) -> None:
    def states() -> tuple[float, float]:
        numbers()  # It opens the connections that it needs itself.
        found = numbers()
        return found["database_pool_connections", "in_use"], found["database_pool_connections", "idle"]

    with app.app_context():
        engine = svcs.flask.get(Engine)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(engine.connect())
        in_use, idle = states()
        assert in_use == 3
    assert states() == (0, idle + 3)
    listener = engine.raw_connection()
    connection = listener.driver_connection
    listener.detach()
    assert connection
    connection.close()
    assert numbers()["database_pool_connections", "idle"] == idle + 2
    engine.dispose()
    assert numbers()["database_pool_connections", "idle"] == 0


def test_without_a_database_what_was_counted_still_comes(
    make_app: MakeApp, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app()
    client = app.test_client()
    client.get("/login")
    with app.app_context():
        svcs.flask.get(Engine).dispose()
    shutil.rmtree(settings.app_dir.data)
    capsys.readouterr()
    response = client.get("/metrics")
    assert response.status_code == 200
    found = numbers_in(response.text)
    assert found["scrape_errors",] == 1
    assert found["http_requests_total", "GET", "/login", "200"] == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "metrics: queues or schedules are left out" in line


def test_they_say_which_version_answers(numbers: Scrape, settings: Settings) -> None:
    assert numbers()["app_info", "testing", settings.app.slug, project_version()] == 1
    assert numbers()["scrape_errors",] == 0


LOOPBACK = {"REMOTE_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("environ", "headers", "allowed"),
    [
        (LOOPBACK, {}, True),
        ({"REMOTE_ADDR": "::1"}, {}, True),
        ({"REMOTE_ADDR": "::ffff:127.0.0.1"}, {}, True),
        ({"REMOTE_ADDR": "192.0.2.7"}, {}, False),
        ({"REMOTE_ADDR": "::ffff:192.0.2.7"}, {}, False),
        # Through a Unix socket.
        ({"REMOTE_ADDR": ""}, {}, False),
        (LOOPBACK, {"X-Forwarded-For": "127.0.0.1"}, False),
        (LOOPBACK, {"X-Forwarded-Proto": "https"}, False),
        (LOOPBACK, {"Forwarded": "for=127.0.0.1"}, False),
        (LOOPBACK, {"X-Real-IP": "127.0.0.1"}, False),
        (LOOPBACK, {"Via": "1.1 proxy"}, False),
        ({"REMOTE_ADDR": "192.0.2.7"}, {"Authorization": f"Bearer {TOKEN}"}, True),
        (LOOPBACK, {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "192.0.2.7"}, True),
        ({"REMOTE_ADDR": "192.0.2.7"}, {"Authorization": f"Bearer {TOKEN}x"}, False),
        ({"REMOTE_ADDR": "192.0.2.7"}, {"Authorization": TOKEN}, False),
        ({"REMOTE_ADDR": "192.0.2.7"}, {"Authorization": "Bearer \xe4"}, False),
    ],
)
def test_only_this_machine_and_who_has_the_token_see_them(
    make_app: MakeApp, environ: dict[str, str], headers: dict[str, str], allowed: bool
) -> None:
    client = make_app(METRICS_TOKEN=TOKEN).test_client()
    response = client.get("/metrics", environ_overrides=environ, headers=headers)
    assert response.status_code == (200 if allowed else 404)
    if not allowed:
        assert response.text == client.get("/nowhere").text


def test_without_a_token_no_token_opens_them(make_app: MakeApp) -> None:
    client, elsewhere = make_app().test_client(), {"REMOTE_ADDR": "192.0.2.7"}
    for given in ("Bearer ", "Bearer", ""):
        answer = client.get("/metrics", environ_overrides=elsewhere, headers={"Authorization": given})
        assert answer.status_code == 404


@pytest.mark.parametrize(("proxies", "status"), [("0", 404), ("1", 404)])
def test_a_visitor_behind_a_proxy_on_this_machine_is_none_of_this_machine(
    make_app: MakeApp, proxies: str, status: int
) -> None:
    client = make_app(APP_WEB__TRUSTED_PROXIES=proxies).test_client()
    for visitor in ("203.0.113.9", "127.0.0.1"):
        answer = client.get("/metrics", environ_overrides=LOOPBACK, headers={"X-Forwarded-For": visitor})
        assert answer.status_code == status


def test_an_app_that_shared_its_numbers_leaves_nothing_behind(make_app: MakeApp, settings: Settings) -> None:
    first, second = make_app(), make_app()
    share(first)
    first.test_client().get("/login")
    assert numbers_in(first.test_client().get("/metrics").text)["http_requests_total", "GET", "/login", "200"] == 1
    svcs.flask.close_registry(first)
    second.test_client().get("/login")
    assert numbers_in(second.test_client().get("/metrics").text)["http_requests_total", "GET", "/login", "200"] == 1
    # The next one finds what the first has counted, as after a restart.
    third = make_app()
    share(third)
    assert numbers_in(third.test_client().get("/metrics").text)["http_requests_total", "GET", "/login", "200"] == 1
    assert not list(settings.app_dir.metrics.glob("counter_[0-9]*"))


def test_a_folder_that_cannot_be_written_is_one_line(make_app: MakeApp, settings: Settings) -> None:
    app = make_app()
    settings.app_dir.work.touch()
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(str(settings.app_dir.metrics))}: cannot be written: [^\n]*appdir make$"
    ):
        share(app)


class Processes:
    """gunicorn with two workers and a queue worker, on one app folder."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.port = free_port()
        self.root, self.log, self.running = settings.root, folder / "log", list[subprocess.Popen[bytes]]()
        python = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("PYTHON")}
        self.environment = {
            **python,
            "APP_ENV": "testing",
            "APP_DIR": str(settings.app_dir.path),
            "PORT": str(self.port),
            "APP_WEB__WORKERS": "2",
            "APP_WEB__THREADS": "1",
            "dramatiq_worker_timeout": "50",
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Python."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment,
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def get(self, path: str) -> str:
        """A page; nothing while nobody answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def counted(self) -> tuple[float, float, float]:
        """Requests of the login page, jobs, and open connections."""
        found = numbers_in(self.get("/metrics"))
        return (
            found.get(("http_requests_total", "GET", "/login", "200"), 0),
            found.get(("jobs_total", "remove_expired", "done", "default"), 0),
            found.get(("database_pool_connections", "idle"), 0),
        )

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """What `condition` returns as soon as it is something."""
        deadline = time.monotonic() + 30
        while not (found := condition()):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return found


@pytest.fixture
def processes(settings: Settings, app: Flask, tmp_path: Path) -> Iterator[Processes]:
    """Whatever was started ends with the test."""
    started = Processes(settings, tmp_path)
    yield started
    for process in started.running:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # It has ended, and so have its workers.
        process.wait()


@pytest.mark.slow
def test_numbers_add_up_over_all_processes_whatever_is_killed(
    processes: Processes, app: Flask, settings: Settings
) -> None:
    def workers() -> set[int]:
        """Of gunicorn, those that have counted a request."""
        files = settings.app_dir.metrics.glob("histogram_*-*.db")
        return {int(path.name.removeprefix("histogram_").partition("-")[0]) for path in files}

    web = processes.start("-m", "gunicorn", "web:app")
    processes.wait_for(lambda: processes.get("/livez"))
    asked = 0
    while len(workers()) < 2:
        assert processes.get("/login")
        asked += 1
    assert processes.counted()[0] == asked

    queue = processes.start("queues.py")
    with transaction(app):
        for _ in range(3):
            remove_expired.send("slot")
    processes.wait_for(lambda: processes.counted()[1] == 3)

    of_web = [number for number in workers() if Path(f"/proc/{number}/stat").read_text().split()[3] == str(web.pid)]
    victim = of_web[0]
    os.kill(victim, signal.SIGKILL)
    processes.wait_for(lambda: processes.counted()[0] >= asked and victim not in workers())
    assert processes.counted()[:2] == (asked, 3)
    assert not list(settings.app_dir.metrics.glob(f"*{victim}-*"))

    # The queue ends and web starts anew while the old one still runs: nothing that was counted is lost.
    os.killpg(queue.pid, signal.SIGKILL)
    queue.wait()
    processes.wait_for(lambda: processes.counted()[:2] == (asked, 3))
    os.killpg(web.pid, signal.SIGKILL)
    web.wait()
    processes.start("-m", "gunicorn", "--preload", "web:app")
    processes.wait_for(lambda: processes.get("/livez"))
    assert processes.get("/login")
    assert processes.counted()[:2] == (asked + 1, 3)
    assert 0 < processes.counted()[2] <= 4
