"""Services that cannot be had are said at the start, in one line."""

from collections.abc import Callable

import pytest
from flask import Flask

from config import ConfigError


@pytest.mark.parametrize(
    ("variable", "url", "line"),
    [
        (
            "DATABASE_URL",
            "mysql://root:hunter2@db/app",
            "config/database.yaml: database.url: found 'mysql://root:***@db/app': "
            "mysql is not supported, expected sqlite or postgresql",
        ),
        (
            "STORAGE_URL",
            "ftp://root:hunter2@files",
            "config/storage.yaml: storage.url: found 'ftp://root:***@files': "
            "ftp scheme, expected file:///path, memory://, s3://bucket/prefix, gs://bucket/prefix, "
            "az://container/prefix or sftp://host/path",
        ),
        (
            "QUEUE_URL",
            "sqs://root:hunter2@queue",
            "config/queue.yaml: queue.url: found 'sqs://root:***@queue': "
            "expected nothing, database:, redis://host:port/0 or amqp://user:password@host:port/",
        ),
        (
            "APP_APP__SECRET_KEY",
            "",
            "environment variable APP_APP__SECRET_KEY: app.secret_key: SECRET_KEY is not set; "
            "run `python main.py appdir make`, which writes one into the app folder's .env",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_and_without_its_password(
    make_app: Callable[..., Flask], variable: str, url: str, line: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        make_app(**{variable: url})
    assert str(raised.value) == line
