"""`python main.py check`: looks at everything that the service needs, and names the command that mends it."""

import logging
import shutil
import time
from contextlib import ExitStack
from datetime import timedelta

import svcs
from flask import current_app
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import create_app
from app.command_line import print_rows
from app.jobs import do_nothing
from app.mail import mail_server
from app.services import check_services, require_migrated, transaction
from config import ConfigError, Settings, find_app_dir, load, mask
from config.privileges import become_service_user
from database import queue_admin, utc_now
from database.broker import DatabaseBroker, QueueMessage
from database.schedule import ScheduleSlot

# The seconds that a worker gets to take a job.
PATIENCE = 5.0


class Skipped(Exception):
    """Why something was not checked."""


def app_folder() -> str:
    folder = find_app_dir()
    for problem in folder.check():
        raise ConfigError(problem)
    return str(folder.path)


def disk_space() -> str:
    total, _, free = shutil.disk_usage(path := find_app_dir().path)
    found = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free"
    if free < max(5e8, total / 20):
        raise ConfigError(f"{found}, expected 500 MB and 5 %; `du -xh --max-depth=2 {path}` shows what takes it")
    return found


def migrations() -> str:
    require_migrated(current_app)
    return "all applied"


def services() -> str:
    found = check_services()
    for name, error in found.items():
        if error:
            raise ConfigError(f"{name}: {getattr(error, 'orig', error)}; see where: `python main.py config show`")
    return ", ".join(found)


def pages() -> str:
    host = next(iter(svcs.flask.get(Settings).security.trusted_hosts), "localhost").lstrip(".")
    paths = sorted({"/", "/readyz"} & {rule.rule for rule in current_app.url_map.iter_rules()})
    for path in paths:
        response = current_app.test_client().get(path, base_url=f"https://{host}")
        if response.status_code >= 400:
            raise ConfigError(f"{path} answers {response.status}; the log says why")
    return " ".join(paths)


def clock() -> str:
    now = utc_now()
    sent_later = select(func.max(ScheduleSlot.sent)).where(ScheduleSlot.sent > now + timedelta(minutes=5))
    ahead = svcs.flask.get(Session).scalar(sent_later)
    return f"{now:%Y-%m-%d %H:%M} UTC" + (f"; once it was ahead, at {ahead:%Y-%m-%d %H:%M}" if ahead else "")


def worker() -> str:
    if svcs.flask.get(Settings).queue.url:
        raise Skipped("the queue is on a server, whose own tools show its workers")
    broker, message = svcs.flask.get(DatabaseBroker), do_nothing.send()
    row = select(QueueMessage.id).where(QueueMessage.message_id == message.message_id)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not broker.rows(row):
            return "one has run a job"
        time.sleep(0.05)
    with transaction(current_app) as session:
        queue_admin.cancel(session, [message.message_id])
    raise Skipped(f"no worker took a job within {PATIENCE:.0f} s: all are busy, or none is running: `python queues.py`")


def mail() -> str:
    settings = svcs.flask.get(Settings)
    if not settings.mail.url:
        return f"MAIL_URL is empty: mails stay in {settings.app_dir.mails}"
    try:
        with mail_server(settings):
            return "the server answers"
    except OSError as error:
        raise ConfigError(f"{error or type(error).__name__}; see where: `python main.py config show`") from None


def report(*, as_json: bool) -> bool:
    """Print a line for each check; returns whether none has failed. Root checks what the service's user can do."""
    become_service_user(find_app_dir())
    rows: list[tuple[str, str, str]] = []
    with ExitStack() as stack:
        # Hide log lines below ERROR while the checks run.
        logging.disable(logging.WARNING)
        stack.callback(logging.disable, logging.NOTSET)

        def settings() -> str:
            app = create_app(found := load())
            stack.callback(svcs.flask.close_registry, app)
            stack.enter_context(app.app_context())
            return f"{len(found.origins)} for {found.environment}"

        for check in (app_folder, disk_space, settings, migrations, services, pages, clock, worker, mail):
            try:
                result, detail = "ok", check()
            except Skipped as reason:
                result, detail = "skipped", str(reason)
            except Exception as error:  # noqa: BLE001  (a part may fail in any way)
                result, detail = "FAILED", mask("", "; ".join(str(error).splitlines()) or type(error).__name__)
            rows.append((check.__name__.replace("_", " "), result, detail))
            if result == "FAILED" and check not in (app_folder, disk_space):
                break  # What follows needs it.
    print_rows(("check", "result", "detail"), rows, as_json=as_json)
    return not any(result == "FAILED" for _, result, _ in rows)
