"""An installation with some files, and nothing that runs."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from config import Settings

FILES = {
    "config/app.yaml": b"name: Ours\n",
    "data/uploads/a b/\xc3\xa4.txt".encode("latin-1").decode(): "ä".encode(),
    "data/uploads/empty": b"",
    f"media/{'long/' * 40}name.bin": bytes(range(256)) * 9000,
    "media/pictures/one.webp": b"one",
    "sessions/data/abc": b"session",
    "README.md": b"What this folder is\n",
}
LEFT_OUT = [
    "work/file",
    "cache/file",
    "logs/errors.jsonl",
    "static/style.css",
    "backups/old.tar.gz",
    "sessions/lock/abc",
    "data/app.sqlite3-journal",
    "data/uploads/.partial/0123456789abcdef0123456789abcdef",
    "media/.partial/0123456789abcdef0123456789abcdef",
]


@pytest.fixture
def settings(settings: Settings, migrated_database: Path) -> Settings:
    """The settings of an installation whose folder is filled."""
    folder = settings.app_dir
    folder.make()
    shutil.copyfile(migrated_database, folder.database)
    with closing(sqlite3.connect(folder.database)) as database:
        database.execute("INSERT INTO rate_limit VALUES ('kept', 1, 0)")
        database.commit()
    for path, content in FILES.items():
        place = folder.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for path in LEFT_OUT:
        place = folder.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"not wanted")
    (folder.path / "data/uploads/.partial/0123456789abcdef0123456789abcdef").chmod(0o600)
    (folder.path / "media/pictures/one.webp").chmod(0o604)
    (folder.path / "media/pictures").chmod(0o751)
    (folder.path / "data/app.sqlite3-journal").unlink()  # SQLite would play it back.
    return settings
