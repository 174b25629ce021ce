"""Services that cannot be had are said at the start, in one line."""

import shutil
import sys
from collections.abc import Callable

import pytest
from flask import Flask

from app.services import require_migrated
from config import ConfigError, Settings


@pytest.mark.parametrize(
    ("variable", "url", "line"),
    [
        (
            "DATABASE_URL",
            "mysql://root:hunter2@db/app",
            "config/database.yaml: database.url: found 'mysql://root:***@db/app': "
            "mysql is not supported, expected postgresql",
        ),
        (
            "STORAGE_URL",
            "ftp://root:hunter2@files",
            "config/storage.yaml: storage.url: found 'ftp://root:***@files': "
            "ftp scheme, expected file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix "
            "or az://container/prefix",
        ),
        (
            "QUEUE_URL",
            "sqs://root:hunter2@queue",
            "config/queue.yaml: queue.url: found 'sqs://root:***@queue': "
            "expected nothing, redis://host:port/0 or amqp://user:password@host:port/",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_and_without_its_password(
    make_app: Callable[..., Flask], variable: str, url: str, line: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        make_app(**{variable: url})
    assert str(raised.value) == line


def test_a_library_that_a_setting_needs_is_named_if_it_is_missing(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    with pytest.raises(ConfigError, match=r"telemetry\.sentry_dsn: found '\*\*\*': .*sentry.* run `make add PACKAGE="):
        make_app(SENTRY_DSN="https://key@sentry.example.org/1")


def test_a_schedule_that_is_disabled_and_not_there_is_named(make_app: Callable[..., Flask]) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.disabled: found 'nope': expected some of .*remove_expired"):
        make_app(APP_SCHEDULE__DISABLED='["remove_expired", "nope"]')


def test_a_process_without_its_database_ends_with_one_line(app: Flask, settings: Settings) -> None:
    shutil.rmtree(settings.app_dir.data)
    with pytest.raises(ConfigError, match=r"^database: unable to open database file; see where: `python main.py"):
        require_migrated(app)
    settings.app_dir.data.mkdir()
    with pytest.raises(ConfigError, match=r"Run: python main.py db upgrade$"):
        require_migrated(app)


def test_sqlite_is_nowhere_but_in_the_app_folder(make_app: Callable[..., Flask]) -> None:
    with pytest.raises(ConfigError, match=r"database\.url: found 'sqlite:////a': leave it empty for SQLite"):
        make_app(DATABASE_URL="sqlite:////a")
