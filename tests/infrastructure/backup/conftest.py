"""An installation with some files, and nothing that runs."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from config import Settings

FILES = {
    "config/app.yaml": b"name: Ours\n",
    "data/uploads/a b/ä.txt": "ä".encode(),
    "data/uploads/empty": b"",
    f"media/{'long/' * 40}name.bin": bytes(range(256)) * 9000,
    "media/pictures/one.webp": b"one",
}
LEFT_OUT = ("work/file", "logs/errors.jsonl", "static/style.css", "backups/old.tar.gz", "media/.partial-x")


@pytest.fixture
def settings(settings: Settings, migrated_database: Path) -> Settings:
    """The settings of an installation whose folder is filled."""
    folder = settings.app_dir
    folder.make()
    shutil.copyfile(migrated_database, folder.database)
    with closing(sqlite3.connect(folder.database)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("INSERT INTO job_count VALUES (1, 'kept', 'done', 1)")
        database.commit()
    for path, content in FILES.items():
        place = folder.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for path in LEFT_OUT:
        (folder.path / path).write_bytes(b"not wanted")
    (folder.path / "media/link").symlink_to("/etc/passwd")
    return settings
