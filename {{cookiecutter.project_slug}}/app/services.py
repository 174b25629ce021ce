"""What the service is made of, by type: `svcs.flask.get(Session)` gives the one of the running request or job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import svcs
from flask import Flask, current_app, g, has_app_context, has_request_context, request
from sqlalchemy import URL, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app import files
from app.job_context import AppContext
from config import ConfigError, Settings
from database import connect, sessions
from database.broker import DatabaseBroker
from database.job_counts import CountJobs
from database.schedule import SlotOutcomes
from database.server_brokers import open_server_broker
from storage import Storage
from storage.disks import Disks, open_disks

UPGRADE = "The database is not at this version's revision. Run: python main.py db upgrade"
# RFC 9110, section 9.2.1: requests that read.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def register(app: Flask, settings: Settings) -> None:
    """Make every service known to `app`, with its health check and its clean-up.

    Raises:
        ConfigError: a URL is not one that the service can use.
    """
    svcs.flask.init_app(app)
    engine = _engine(settings)
    disks = open_disks(settings, files.link)
    broker: Any = _broker(app, engine, settings)
    writing, reading = sessions(engine), sessions(engine, read_only=True)

    def open_session() -> Iterator[Session]:
        reads = not has_request_context() or request.method in SAFE_METHODS
        with (reading if reads and not g.get("in_transaction") else writing)() as session:
            g.session = session
            yield session

    for section in (settings, *settings.features.values()):
        svcs.flask.register_value(app, type(section), section)
    svcs.flask.register_value(app, Engine, engine, ping=_ping_database, on_registry_close=engine.dispose)
    svcs.flask.register_factory(app, Session, open_session)
    svcs.flask.register_value(app, Disks, disks, ping=Disks.check)
    svcs.flask.register_value(app, Storage, disks["default"])
    svcs.flask.register_value(app, type(broker), broker, ping=lambda it: it.check(), on_registry_close=broker.close)


def require_migrated(app: Flask) -> None:
    """Refuse to work without a database that has its tables.

    Raises:
        ConfigError: the database cannot be reached, or waits for a migration.
    """
    from database.migrations import missing, pending

    try:
        with app.app_context():
            if pending(engine := svcs.flask.get(Engine)):
                raise ConfigError(UPGRADE)
            if lacking := missing(engine):
                raise ConfigError(f"The database lacks {', '.join(lacking)}; see: python main.py db check")
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())
        raise ConfigError(f"database: {reason}; see where: `python main.py config show`") from None


def check_services() -> dict[str, Exception | None]:
    """What is wrong with each part that a request may need; None for one that works."""
    # What operators call the services.
    names = {"Engine": "database", "Disks": "storage", type(dramatiq.get_broker()).__name__: "queue"}
    checks: dict[str, Callable[[], None]] = {"migrations": lambda: require_migrated(current_app)}
    for ping in svcs.flask.get_pings():
        kind = ping.name.rpartition(".")[2]
        checks[names.get(kind, kind.lower())] = ping.ping
    found: dict[str, Exception | None] = dict.fromkeys(checks)
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001  (a part may fail as it likes; the caller tells of it)
            found[name] = error
    return found


@contextmanager
def transaction(app: Flask) -> Iterator[Session]:
    """An app context whose session is committed at the end, or rolled back by an exception."""
    with app.app_context():
        g.in_transaction = True
        session = svcs.flask.get(Session)
        yield session
        session.commit()


def current_session() -> Session | None:
    """The session that the running request, job or transaction will commit; elsewhere, sessions only read."""
    if has_request_context() or (has_app_context() and g.get("in_transaction")):
        return svcs.flask.get(Session)
    return None


def _engine(settings: Settings) -> Engine:
    database = settings.database
    try:
        if database.url.startswith("sqlite"):
            raise ValueError("leave it empty for SQLite, whose file is data/app.sqlite3 in the app folder")
        return connect(
            database.url or URL.create("sqlite", database=str(settings.app_dir.database)),
            timeout=database.timeout,
            statement_timeout=database.statement_timeout,
            threads=max(settings.web.threads, settings.queue.threads),
        )
    except ValueError as error:
        raise settings.wrong("database.url", database.url, error) from None


def _broker(app: Flask, engine: Engine, settings: Settings) -> dramatiq.Broker:
    """Dramatiq's broker, which is one for the process: actors that were declared on an earlier one move over."""
    queue = settings.queue
    broker: dramatiq.Broker
    if queue.url:
        try:
            broker = open_server_broker(queue.url, current_session, lease=queue.lease)
        except ValueError as error:
            raise settings.wrong("queue.url", queue.url, error) from None
    else:
        broker = DatabaseBroker(engine, current_session, lease=queue.lease)
    # Hooks after a job run in reverse order, so these come last: an error in them must not stop Dramatiq's retry.
    first = type(broker.middleware[0])
    broker.add_middleware(AppContext(app, transaction), before=first)
    broker.add_middleware(SlotOutcomes(engine), before=first)
    broker.add_middleware(CountJobs(engine), before=first)
    previous = dramatiq.broker.global_broker
    dramatiq.set_broker(broker)
    for actor in previous.actors.values() if previous else ():
        actor.broker = broker
        broker.declare_actor(actor)
    return broker


def _ping_database(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
