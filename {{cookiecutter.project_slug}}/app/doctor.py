"""Looks at everything that an installation needs, and says what mends what is wrong."""

import importlib.metadata
import platform
import secrets
import shlex
import shutil
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import dramatiq
import svcs
from dramatiq.errors import BrokerConnectionError
from flask import Flask
from rich.console import Console
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import DBAPIError

from app.command_line import print_json, printable, relative
from app.jobs import answer_doctor
from app.services import UPGRADE
from backup.create import backups_in, folder_of
from config import ROOT, AppDir, ConfigError, Settings, find_app_dir, load, mask
from config.privileges import become_service_user
from config.safety import debug_problems, secret_problems
from database import queue_admin, sessions, utc_now
from database.broker import TableBroker
from database.once import DoneOnce
from database.queue_statistics import last_sample
from database.schedule import database_now
from storage import StorageError
from storage.disks import Disks

Service = TypeVar("Service")

# Seconds that a worker gets to answer, and between two looks for that.
PATIENCE = 10.0
PAUSE = 0.1
SCHEDULER_SILENCE = timedelta(minutes=2.5)
# The database says when leases end and slots are due, this machine when sessions and links do.
CLOCK_DIFFERENCE = timedelta(seconds=5)
YEARS = range(2025, 2100)
FREE_BYTES = 500_000_000
FREE_SHARE = 0.05
MARKS = {True: ("ok", "green"), False: ("FAILED", "red"), None: ("skipped", "yellow")}


class Result(NamedTuple):
    """What a check has found; `ok` is None if it could not be made."""

    name: str
    ok: bool | None
    detail: str


class Failed(Exception):
    """What was found is wrong; the message says what mends it."""


class Skipped(Exception):
    """The check cannot be made, or has nothing to look at."""


class Installation:
    """What checks look at. Each part is made when the first check asks for it, and skips that one if it cannot be.

    Args:
        create_app: makes the service.
    """

    def __init__(self, create_app: Callable[[Settings], Flask]) -> None:
        self.create_app = create_app
        self.root = ROOT

    @cached_property
    def folder(self) -> AppDir:
        """The app folder, which is known as well while settings are wrong."""
        try:
            return find_app_dir()
        except ConfigError:
            raise Skipped("needs the settings") from None

    @cached_property
    def loaded(self) -> Settings | ConfigError:
        """The settings, or why there are none."""
        try:
            return load()
        except ConfigError as error:
            return error

    @cached_property
    def made(self) -> Flask | Exception:
        """The service, or why it cannot start."""
        try:
            return self.create_app(self.settings)
        except Exception as error:  # noqa: BLE001  (a feature may raise anything)
            return error

    @property
    def settings(self) -> Settings:
        """The settings, safe or not."""
        if isinstance(self.loaded, ConfigError):
            raise Skipped("needs the settings")
        return self.loaded

    def get(self, service: type[Service]) -> Service:
        """A service, as the settings name it."""
        app = self.made if isinstance(self.loaded, Settings) else None
        if not isinstance(app, Flask):
            raise Skipped("needs the service, which cannot start")
        with app.app_context():
            return svcs.flask.get_abstract(service)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close what was opened."""
        if isinstance(self.loaded, Settings) and isinstance(app := self.made, Flask):
            svcs.flask.close_registry(app)


def check_settings(found: Installation) -> str:
    """They can be read, and the service can be made of them."""
    if isinstance(found.loaded, ConfigError):
        raise Failed("; ".join(found.loaded.problems))
    if isinstance(found.made, ConfigError):
        raise Failed("; ".join(found.made.problems))
    if isinstance(found.made, Exception):
        raise found.made
    return f"{len(found.settings.origins)} for {found.settings.environment}"


def check_app_folder(found: Installation) -> str:
    """As `appdir check`."""
    findings = [f"{path}: {what}; run `{mend}`" for path, what, mend in found.folder.check()]
    if findings:
        more = f", and {len(findings) - 1} more: `python main.py appdir check`" if findings[1:] else ""
        raise Failed(f"{findings[0]}{more}")
    return str(found.folder.path)


def check_secret(found: Installation) -> str:
    """It is there, and strong in production."""
    _fail(secret_problems(found.settings))
    return found.settings.origins["app.secret_key"]


def check_debug(found: Installation) -> str:
    """It is off in production."""
    _fail(debug_problems(found.settings))
    return f"{'on' if found.settings.app.debug else 'off'} in {found.settings.environment}"


def check_cookies(found: Installation) -> str:
    """In production, they are sent over HTTPS only."""
    settings = found.settings
    if settings.environment != "production":
        raise Skipped("only production needs HTTPS")
    if not settings.security.cookie_secure:
        raise Failed(str(settings.wrong("security.cookie_secure", "false", "expected true in production")))
    return "over HTTPS only"


def check_database(found: Installation) -> str:
    """It answers; a file is whole."""
    engine = found.get(Engine)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        # To look would make an empty one.
        raise Failed(f"{engine.url.database}: is missing; run `python main.py db upgrade`")
    with engine.connect().execution_options(read_only=True) as connection:
        if engine.dialect.name == "sqlite":
            if (answer := connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()) != "ok":
                raise Failed(f"{engine.url.database}: {answer}; restore a backup")
        else:
            connection.execute(select(1))
    return f"{engine.dialect.name} answers"


def check_migrations(found: Installation) -> str:
    """None waits."""
    from database.migrations import applied, heads, pending

    engine = _database(found)
    if pending(engine):
        raise Failed(UPGRADE)
    newer = applied(engine) - heads()
    return f"newer code has migrated to {', '.join(sorted(newer))}" if newer else f"at {', '.join(sorted(heads()))}"


def check_storage(found: Installation) -> str:
    """What is written on a disk can be read and removed again."""
    disks = found.get(Disks)
    problems = []
    for name, storage in disks.items():
        path, content = f"doctor-{secrets.token_hex(16)}.txt", secrets.token_bytes(64)
        try:
            storage.write(path, content, overwrite=False)
            try:
                if storage.read(path) != content:
                    problems.append(f"storage.disks.{name}: reads something else than was written; look at the disk")
            finally:
                storage.remove(path)
        except StorageError as error:
            problems.append(f"storage.disks.{name}, set in {_origin(found, f'storage.disks.{name}')}: {error}")
    _fail(problems)
    return ", ".join(disks)


def check_queue(found: Installation) -> str:
    """A worker runs what is sent."""
    engine, broker = _database(found), found.get(dramatiq.Broker)
    assert isinstance(broker, TableBroker)  # noqa: S101
    try:
        broker.check()
    except Exception as error:  # noqa: BLE001  (each server's driver has errors of its own)
        raise Failed(f"{error}; see queue.url, set in {_origin(found, 'queue.url')}") from None
    key = f"doctor {secrets.token_hex(16)}"
    message = answer_doctor.send(key)
    began = time.monotonic()
    try:
        with _waiting("waiting for a worker"):
            while not _is_answered(engine, key):
                if (waited := time.monotonic() - began) > PATIENCE:
                    waiting = sum(queue_admin.status(broker, name).waiting for name in queue_admin.queue_names(broker))
                    raise Failed(
                        f"no worker has answered for {waited:.0f} s, and {max(0, waiting - 1)} jobs wait; "
                        "start one: `python queues.py`, or look at its log"
                    )
                time.sleep(PAUSE)
        return f"a worker answered after {time.monotonic() - began:.1f} s"
    finally:
        _clean_up(engine, broker, message.message_id, key)


def check_scheduler(found: Installation) -> str:
    """One was alive a moment ago."""
    with sessions(_database(found), read_only=True)() as session:
        last = last_sample(session)
    if last is None or utc_now() - last > SCHEDULER_SILENCE:
        seen = f"last seen {relative(last)}" if last else "never seen"
        raise Failed(f"{seen}; start it: `python scheduler.py`, or look at its log")
    return f"last seen {relative(last)}"


def check_clock(found: Installation) -> str:
    """This machine's is sane, and that of the database shows the same."""
    mend = "let both be set over the network: `timedatectl set-ntp true`"
    before = utc_now()
    if before.year not in YEARS:
        raise Failed(f"this machine's says {before:%Y-%m-%d}; {mend}")
    with sessions(_database(found), read_only=True)() as session:
        before, database, after = utc_now(), database_now(session), utc_now()
    difference = database - (before + (after - before) / 2)
    if abs(difference) > CLOCK_DIFFERENCE:
        raise Failed(f"the database's is {difference.total_seconds():+.1f} s away from this machine's; {mend}")
    return f"{before:%Y-%m-%d %H:%M} UTC, and the database's shows the same"


def check_disk_space(found: Installation) -> str:
    """There is room in the app folder."""
    path = found.folder.path
    if not path.is_dir():
        raise Skipped("needs the app folder")
    total, _, free = shutil.disk_usage(path)
    detail = f"{free / 1e9:.1f} GB of {total / 1e9:.1f} GB free at {path}"
    if free < FREE_BYTES or free < total * FREE_SHARE:
        expected = f"expected {FREE_BYTES / 1e6:.0f} MB and {FREE_SHARE:.0%}"
        raise Failed(f"{detail}, {expected}; `du -xh --max-depth=2 {shlex.quote(str(path))}` shows what takes it")
    return detail


def check_versions(found: Installation) -> str:
    """Python is new enough, and packages are as pinned."""
    # Only here, because every process of the service imports this module.
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((found.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python, wanted = platform.python_version(), project["requires-python"]
    if not SpecifierSet(wanted).contains(python, prereleases=True):
        raise Failed(f"Python {python}, expected {wanted}; make another environment with `make setup PYTHON=…`")
    lines = (found.root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if "==" in line and not line.startswith((" ", "#"))]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    installed = {pin.name: _version(pin.name) for pin in pins}
    differing = [
        f"{pin.name} {installed[pin.name] or 'is missing'}, expected {pin.specifier}"
        for pin in pins
        if not pin.specifier.contains(installed[pin.name] or "0", prereleases=True)
    ]
    if differing:
        raise Failed("; ".join([*differing, "run `make setup`"]))
    return f"Python {python}, {len(pins)} packages as in requirements.txt"


def check_last_backup(found: Installation) -> str:
    """For people: how old it is."""
    folder = folder_of(found.settings)
    backups = backups_in(folder, found.settings.app.slug) if folder.is_dir() else []
    times = [path.stat().st_mtime for path in backups]
    if not times:
        raise Skipped(f"there is none in {folder}; `python main.py backup create` makes one")
    return f"{relative(datetime.fromtimestamp(max(times), UTC))} in {folder}"


CHECKS: dict[str, Callable[[Installation], str]] = {
    "settings": check_settings,
    "app folder": check_app_folder,
    "secret": check_secret,
    "debug": check_debug,
    "cookies": check_cookies,
    "database": check_database,
    "migrations": check_migrations,
    "storage": check_storage,
    "queue": check_queue,
    "scheduler": check_scheduler,
    "clock": check_clock,
    "disk space": check_disk_space,
    "versions": check_versions,
    "last backup": check_last_backup,
}


def examine(found: Installation) -> Iterator[Result]:
    """The results of all checks, whatever the others have found."""
    try:
        for name, check in CHECKS.items():
            ok, detail = _outcome(check, found)
            yield Result(name, ok, printable(" ".join(str(mask("", detail)).split())))
    finally:
        found.close()


def report(create_app: Callable[[Settings], Flask], *, as_json: bool) -> bool:
    """Print the results; returns whether none has failed.

    Root becomes the service's user first: what the service can do is what is checked.
    """
    with suppress(ConfigError):  # The first check tells of it.
        become_service_user(find_app_dir())
    results = []
    for result in examine(Installation(create_app)):
        results.append(result)
        if not as_json:
            mark, colour = MARKS[result.ok]
            click.echo(f"{click.style(mark.ljust(7), colour)}  {result.name.ljust(11)}  {result.detail}")
    if as_json:
        print_json([result._asdict() for result in results])
    return not any(result.ok is False for result in results)


def _outcome(check: Callable[[Installation], str], found: Installation) -> tuple[bool | None, str]:
    try:
        return True, check(found)
    except Skipped as reason:
        return None, str(reason)
    except Failed as reason:
        return False, str(reason)
    except ConfigError as error:
        return False, "; ".join(error.problems)
    except DBAPIError as error:
        return False, f"{error.orig}; see database.url, set in {_origin(found, 'database.url')}"
    except BrokerConnectionError as error:
        return False, f"{error}; see queue.url, set in {_origin(found, 'queue.url')}"
    except Exception as error:  # noqa: BLE001  (the other checks shall run)
        return False, f"{type(error).__name__}: {error}"


def _fail(problems: Iterable[str]) -> None:
    if text := "; ".join(problems):
        raise Failed(text)


def _origin(found: Installation, key: str) -> str:
    return found.settings.origins.get(key, f"config/{key.partition('.')[0]}.*")


def _database(found: Installation) -> Engine:
    """The database, unless it is a file that is missing."""
    engine = found.get(Engine)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        raise Skipped("needs the database")
    return engine


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    console = Console(stderr=True)
    with console.status(what) if console.is_terminal else nullcontext():
        yield


def _is_answered(engine: Engine, key: str) -> bool:
    with sessions(engine, read_only=True)() as session:
        return session.get(DoneOnce, key) is not None


def _clean_up(engine: Engine, broker: TableBroker, message_id: str, key: str) -> None:
    """Take back the message, if it still waits, and the key that a worker has taken."""
    try:
        for message in queue_admin.find(broker, message_id):
            if message.state in ("waiting", "delayed"):
                queue_admin.cancel(broker, message)
    except LookupError:
        pass  # It has run.
    with sessions(engine).begin() as session:
        session.execute(delete(DoneOnce).where(DoneOnce.key == key))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
