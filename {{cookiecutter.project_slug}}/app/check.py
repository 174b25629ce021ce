"""`python main.py check`: looks at everything that the service needs, and names the command that mends it."""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import svcs
from click import ClickException as Failed
from dramatiq.errors import BrokerConnectionError
from flask import current_app, has_app_context
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import create_app
from app.command_line import print_rows
from app.jobs import do_nothing
from app.services import UPGRADE, transaction
from config import Settings, find_app_dir, load, mask
from config.privileges import become_service_user
from database import queue_admin, utc_now
from database.base import database_time
from database.broker import DatabaseBroker, QueueMessage
from database.migrations import pending
from database.schedule import SCHEDULES, ScheduleSlot

# What a scheduler may be late, and the seconds that a worker gets to take a job.
LATE, PATIENCE = timedelta(minutes=5), 5.0


class Skipped(Exception):
    """Why something was not checked."""


def app_folder() -> str:
    folder = find_app_dir()
    for problem in folder.check():
        raise Failed(problem)
    return str(folder.path)


def disk_space() -> str:
    total, _, free = shutil.disk_usage(path := find_app_dir().path)
    found = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free"
    if free < max(5e8, total / 20):
        raise Failed(f"{found}, expected 500 MB and 5 %; `du -xh --max-depth=2 {path}` shows what takes it")
    return found


def services() -> str:
    pings = svcs.flask.get_pings()
    for ping in pings:
        try:
            ping.ping()
        except Exception as error:  # noqa: BLE001  (each has errors of its own)
            reason = getattr(error, "orig", None) or error
            raise Failed(f"{ping.name}: {reason}; `python main.py config show` says where it is expected") from None
    return ", ".join(ping.name.rpartition(".")[2] for ping in pings)


def migrations() -> str:
    if pending(svcs.flask.get(Engine)):
        raise Failed(UPGRADE)
    return "all applied"


def pages() -> str:
    host = next(iter(svcs.flask.get(Settings).security.trusted_hosts), "localhost").lstrip(".")
    paths = sorted({"/", "/readyz"} & {rule.rule for rule in current_app.url_map.iter_rules()})
    for path in paths:
        response = current_app.test_client().get(path, base_url=f"https://{host}")
        if response.status_code >= 400:
            raise Failed(f"{path} answers {response.status}; the log says why")
    return " ".join(paths)


def clock() -> str:
    session, now = svcs.flask.get(Session), utc_now()
    apart = session.scalars(select(database_time())).one() - now.timestamp()
    if abs(apart) > 5:
        raise Failed(f"the database's is {apart:+.0f} s from this machine's; run `timedatectl set-ntp true` on both")
    ahead = session.scalar(select(func.max(ScheduleSlot.sent)).where(ScheduleSlot.sent > now + LATE))
    return f"{now:%Y-%m-%d %H:%M} UTC" + (f"; once it was ahead, at {ahead:%Y-%m-%d %H:%M}" if ahead else "")


def scheduler() -> str:
    now = utc_now()
    by_scheduler = ScheduleSlot.slot <= now, ScheduleSlot.line.is_not(None)
    last = svcs.flask.get(Session).scalar(select(func.max(ScheduleSlot.slot)).where(*by_scheduler))
    if last is None:
        raise Skipped("none has ever run; `python scheduler.py` starts one")
    due = max(schedule.latest_slot(now - LATE) for schedule in SCHEDULES.values())
    if last < due:
        raise Failed(f"nothing was sent at {due:%Y-%m-%d %H:%M} UTC; start one: `python scheduler.py`, or see its log")
    return f"the last slot was {last:%Y-%m-%d %H:%M} UTC"


def worker() -> str:
    if svcs.flask.get(Settings).queue.url:
        raise Skipped("the queue is on a server, whose own tools show its workers")
    broker = svcs.flask.get(DatabaseBroker)
    message, began = do_nothing.send(), time.monotonic()
    row = select(QueueMessage.dead).where(QueueMessage.message_id == message.message_id)
    while (waited := time.monotonic() - began) < PATIENCE:
        if not (found := broker.rows(row)):
            return f"one has run a job after {waited:.1f} s"
        if found[0].dead:
            raise Failed("a job that does nothing has failed; `python main.py queue list --state failed` says why")
        time.sleep(0.05)
    with transaction(current_app) as session:
        queue_admin.cancel(session, [message.message_id])
    raise Skipped(f"none took a job in {PATIENCE:.0f} s: they are busy, or `python queues.py` has to be started")


def report(*, as_json: bool) -> bool:
    """Print a line for each check; returns whether none has failed. Root checks what the service's user can do."""
    become_service_user(find_app_dir())
    with ExitStack() as stack:
        # What requests and commands log here says nothing; errors do.
        logging.disable(logging.WARNING)
        stack.callback(logging.disable, logging.NOTSET)

        def settings() -> str:
            found = load()
            app = create_app(found)
            stack.callback(svcs.flask.close_registry, app)
            stack.enter_context(app.app_context())
            return f"{len(found.origins)} for {found.environment}"

        checks = (settings, app_folder, disk_space, services, migrations, pages, clock, scheduler, worker)
        rows = [(check.__name__.replace("_", " "), *_result(check)) for check in checks]
    print_rows(("check", "result", "detail"), rows, as_json=as_json)
    return not any(result == "FAILED" for _, result, _ in rows)


def _result(check: Callable[[], str]) -> tuple[str, str]:
    try:
        return "ok", check()
    except Skipped as reason:
        return "skipped", str(reason)
    except (BrokerConnectionError, DBAPIError):
        return "skipped", "needs the database"
    except Exception as error:  # noqa: BLE001  (a part may fail in any way, and the others are checked all the same)
        if isinstance(error, RuntimeError) and not has_app_context():
            return "skipped", "needs the settings"
        return "FAILED", mask("", "; ".join(str(error).splitlines()) or type(error).__name__)
