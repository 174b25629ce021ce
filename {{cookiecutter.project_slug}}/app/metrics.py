"""What the service has done and how it is: numbers for Prometheus, at /metrics.

Processes of one machine count into files of one folder. A file is locked for as long as its process lives; those of
processes that are gone are added up into one, so that no count ever falls, whatever is killed or started again.
"""

import fcntl
import ipaddress
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any

import dramatiq
import svcs
from dramatiq.common import q_name
from dramatiq.errors import BrokerConnectionError
from flask import Flask, Response, abort, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from config import ConfigError, Settings, project_version
from database import queue_admin, schedule, utc_now
from database.attempts import Attempts
from database.broker import TableBroker

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# What a proxy adds to a request that it passes on.
PROXY_HEADERS = ("Forwarded", "Via", "X-Real-IP")
JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900)
# The sums of all processes that are gone; gauges go with their process.
SUMMED = ("counter", "histogram")
GONE = "gone"

logger = logging.getLogger(__name__)


class Metrics:
    """The numbers of an app. They are this process's own until `share` puts them into files."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.folder: Path | None = None
        self.started = utc_now()
        self.requests = Counter(
            "http_requests_total", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds", "Time to the start of the answer.", ("route",), registry=self.registry
        )
        self.jobs = Counter(
            "jobs_total", "Attempts at jobs that ended.", ("queue", "job", "outcome"), registry=self.registry
        )
        self.job_seconds = Histogram(
            "job_duration_seconds", "Time of an attempt.", ("job",), buckets=JOB_SECONDS, registry=self.registry
        )
        self.connections = Gauge(
            "database_pool_connections",
            "Open connections of all processes.",
            ("state",),
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        # To find a number by its labels costs more than to count.
        self.bound: dict[tuple[Any, ...], Callable[[float], None]] = {}

    def count_request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request; one without a route counts for "unmatched", whatever its path was."""
        method = method if method in METHODS else "other"
        route = route or "unmatched"
        self._bound(("request", method, route, status), lambda: self.requests.labels(method, route, status).inc)(1)
        self._bound(("seconds", route), lambda: self.request_seconds.labels(route).observe)(seconds)

    def count_job(self, queue: str, job: str, outcome: str, seconds: float | None) -> None:
        """Count an attempt that is done, failed, or skipped, which takes no time."""
        self._bound(("job", queue, job, outcome), lambda: self.jobs.labels(queue, job, outcome).inc)(1)
        if seconds is not None:
            self._bound(("job seconds", job), lambda: self.job_seconds.labels(job).observe)(seconds)

    def _bound(self, key: tuple[Any, ...], find: Callable[[], Callable[[float], None]]) -> Callable[[float], None]:
        found = self.bound.get(key)
        if found is None:
            found = self.bound[key] = find()
        return found

    def follow_pool(self, engine: Engine) -> None:
        """Keep count of an engine's connections."""

        def change(in_use: int, idle: int) -> Callable[..., None]:
            def listener(*_: object) -> None:
                for state, by in (("in_use", in_use), ("idle", idle)):
                    if by:
                        self._bound(("pool", state), lambda: self.connections.labels(state).inc)(by)  # noqa: B023

            return listener

        event.listen(engine, "connect", change(0, 1))
        event.listen(engine, "close", change(0, -1))
        event.listen(engine, "checkout", change(1, -1))
        event.listen(engine, "checkin", change(-1, 1))
        event.listen(engine, "detach", change(-1, 0))

    def collect(self) -> Iterable[Metric]:
        """The numbers of all processes."""
        if self.folder is None:
            return list(self.registry.collect())
        with _locked(self.folder):
            _add_up_the_gone(self.folder)
            # A file is empty for the moment in which it is made.
            files = [str(path) for path in self.folder.glob("*.db") if path.stat().st_size]
            return list(MultiProcessCollector.merge(files))


class JobMetrics(Attempts):
    """Counts the jobs of a worker."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self.metrics = metrics

    def ended(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, seconds: float, *, failed: bool) -> None:
        """Count an attempt."""
        self._count(broker, message, "failed" if failed else "done", seconds)

    def after_skip_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """One that was put off comes again, and is counted then."""
        if not getattr(message, "put_off", False):
            self._count(broker, message, "skipped", None)

    def _count(
        self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, outcome: str, seconds: float | None
    ) -> None:
        job = message.actor_name if message.actor_name in broker.actors else "unknown"
        self.metrics.count_job(q_name(message.queue_name), job, outcome, seconds)


class Scrape(Collector):
    """What is read at the moment somebody asks, and what was counted until then."""

    def __init__(self, metrics: Metrics, settings: Settings, session: Session, broker: TableBroker) -> None:
        self.metrics = metrics
        self.settings = settings
        self.session = session
        self.broker = broker

    def collect(self) -> Iterator[Metric]:
        """Everything; without a database, or the broker's server, what needs none."""
        info = GaugeMetricFamily("app_info", "The service that answers.", labels=("service", "version", "environment"))
        version = project_version(self.settings.root)
        info.add_metric((self.settings.app.slug, version, self.settings.environment), 1)
        yield info
        yield from self.metrics.collect()
        errors = 0
        try:
            yield self._schedules()
            yield from self._queues()
        except (SQLAlchemyError, BrokerConnectionError) as error:
            errors = 1
            logger.warning("metrics: queues or schedules are left out: %s", getattr(error, "orig", None) or error)
        yield GaugeMetricFamily("scrape_errors", "1 if queues or schedules could not be read.", errors)

    def _schedules(self) -> Metric:
        family = GaugeMetricFamily(
            "schedule_lag_seconds", "How long the first slot is due that no scheduler has sent.", labels=("schedule",)
        )
        now = schedule.database_now(self.session)
        known = {row.name: row for row in self.session.scalars(select(schedule.KnownSchedule))}
        for name in schedule.SCHEDULES.keys() - self.settings.schedule.disabled:
            family.add_metric([name], overdue(schedule.SCHEDULES[name], known.get(name), self.metrics.started, now))
        return family

    def _queues(self) -> Iterator[Metric]:
        messages = GaugeMetricFamily("queue_messages", "Jobs in a queue.", labels=("queue", "state"))
        oldest = GaugeMetricFamily(
            "queue_oldest_seconds", "How long the first of the waiting jobs waits.", labels=("queue",)
        )
        now = datetime.now(UTC)
        for name in queue_admin.queue_names(self.broker):
            status = queue_admin.status(self.broker, name)
            for state in queue_admin.STATES:
                if (count := getattr(status, state)) is not None:
                    messages.add_metric((name, state), count)
            waits = (now - status.oldest).total_seconds() if status.oldest else 0
            oldest.add_metric([name], max(0, waits))
        yield messages
        yield oldest


def overdue(wanted: schedule.Schedule, known: schedule.KnownSchedule | None, started: datetime, now: datetime) -> float:
    """For how many seconds the first slot is due that no scheduler has dealt with; 0 if there is none.

    A schedule that no scheduler has seen in its present form begins with `started`, when this process did. One that
    catches nothing up has a slot to send for a minute only.
    """
    seen = known is not None and known.definition == wanted.definition
    since = known.dealt_with if known and seen else started
    catches_up = wanted.catch_up != "none"
    first = wanted.next_slot(since) if catches_up else next(wanted.due_slots(since, now), now)
    return max(0.0, (now - first).total_seconds())


def register(app: Flask) -> None:
    """Count what `app` does, and show it at /metrics."""
    metrics = Metrics()
    svcs.flask.register_value(app, Metrics, metrics)
    with app.app_context():
        broker = svcs.flask.get_abstract(dramatiq.Broker)
        metrics.follow_pool(svcs.flask.get(Engine))
    broker.add_middleware(JobMetrics(metrics))
    app.add_url_rule("/metrics", "metrics", show)


def show() -> Response:
    """The numbers, for who is on this machine or has the token; for everybody else there is nothing here."""
    settings, broker = svcs.flask.get(Settings), svcs.flask.get_abstract(dramatiq.Broker)
    if not (_has_token(settings.telemetry.metrics_token) or _is_on_this_machine()):
        abort(404)
    assert isinstance(broker, TableBroker)  # noqa: S101
    scrape = Scrape(svcs.flask.get(Metrics), settings, svcs.flask.get(Session), broker)
    registry = CollectorRegistry()
    registry.register(scrape)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def share(app: Flask) -> None:
    """Let this process, and those that it forks, count into files, and show the sum of all that do.

    For the service's processes, before they count anything; commands and tests keep their numbers to themselves.

    Raises:
        ConfigError: the folder cannot be written.
    """
    with app.app_context():
        metrics, folder = svcs.flask.get(Metrics), svcs.flask.get(Settings).app_dir.metrics
    name = ProcessName(folder)
    try:
        values.ValueClass = values.MultiProcessValue(name)
        with _locked(folder):
            _add_up_the_gone(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}. Run: python main.py appdir make") from None
    # The library looks here for its files' folder.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    metrics.folder = folder
    svcs.flask.register_value(app, ProcessName, name, on_registry_close=name.end)


class ProcessName:
    """A name for this process that no other one has, also in another container or after a restart of the machine.

    A file of that name is locked until the process ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = 0
        self.name = ""
        self.lock = -1

    def __call__(self) -> str:
        """The name; a process that was forked gets another one."""
        if self.process != os.getpid():
            self.process = os.getpid()
            self.name = f"{self.process}-{time.time_ns()}"
            # A lock that was inherited is given back by closing it; its owner keeps it.
            if self.lock != -1:
                os.close(self.lock)
            with _locked(self.folder):
                self.lock = os.open(self.folder / f"{self.name}.alive", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
                fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self.name

    def end(self) -> None:
        """Count in memory again."""
        values.ValueClass = values.MutexValue
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        os.close(self.lock)


def _add_up_the_gone(folder: Path) -> None:
    """Add what processes have counted that are gone to one file, and remove theirs."""
    for alive in folder.glob("*.alive"):
        with alive.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            files = [folder / f"{kind}_{alive.stem}.db" for kind in SUMMED]
            for kind, file in zip(SUMMED, files, strict=True):
                if file.exists() and file.stat().st_size:
                    _add(file, folder / f"{kind}_{GONE}.db")
            for file in (*files, *folder.glob(f"gauge_*_{alive.stem}.db"), alive):
                file.unlink(missing_ok=True)


def _add(file: Path, total: Path) -> None:
    sums: defaultdict[str, float] = defaultdict(float)
    for source in (total, file):
        if source.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):
                sums[key] += value
    new = total.with_suffix(".new")
    new.unlink(missing_ok=True)
    written = MmapedDict(str(new))
    for key, value in sums.items():
        written.write_value(key, value, 0)
    written.close()
    new.replace(total)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _has_token(token: str) -> bool:
    given = request.headers.get("Authorization", "")
    return bool(token) and compare_digest(given.encode(), f"Bearer {token}".encode())


def _is_on_this_machine() -> bool:
    """Whether nobody stands between us and a client on loopback. Through a Unix socket, only a proxy comes."""
    passed_on = any(name in request.headers for name in PROXY_HEADERS)
    if passed_on or any(name.startswith("X-Forwarded-") for name in request.headers.keys()):  # noqa: SIM118
        return False
    try:
        return ipaddress.ip_address((request.remote_addr or "").removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False
