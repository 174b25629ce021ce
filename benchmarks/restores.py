"""Whether a backup that is made while the service writes brings back all that was there before it began.

Real are the commands, and the folder of an installation with its database. A writer adds a file and then the row that
names it, up to 50 times a second.
"""

import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.projects import bake, run
from benchmarks.rows import Row, rounds

RESTORES = 7
BAD = Row(f"Bad of {RESTORES} backups restored, made while it writes", "bad", 0)
ROWS = (BAD,)


def content(number: int) -> bytes:
    return f"file {number} ".encode() * 1000


class Writer(threading.Thread):
    """Writes until it is told to stop."""

    def __init__(self, app_dir: Path) -> None:
        super().__init__()
        self.app_dir, self.committed, self.stopped = app_dir, 0, threading.Event()

    def run(self) -> None:
        with closing(sqlite3.connect(self.app_dir / "data/app.sqlite3", timeout=60)) as database:
            database.execute("CREATE TABLE bench_file (number INTEGER PRIMARY KEY)")
            while not self.stopped.wait(0.02):
                number = self.committed + 1
                (self.app_dir / f"media/{number}").write_bytes(content(number))
                database.execute("INSERT INTO bench_file VALUES (?)", (number,))
                database.commit()
                self.committed = number


def is_whole(app_dir: Path, committed: int) -> bool:
    """Whether all rows that were committed are there, and the files of all rows."""
    media = {path.name: path.read_bytes() for path in (app_dir / "media").iterdir() if path.is_file()}
    with closing(sqlite3.connect(app_dir / "data/app.sqlite3")) as database:
        sound = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        numbers = [number for (number,) in database.execute("SELECT number FROM bench_file ORDER BY number")]
    files = all(media.get(str(number)) == content(number) for number in numbers)
    return sound and files and numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= committed


def measure() -> Iterator[Row]:
    """Back up and restore again and again."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project, app_dir = bake(folder), folder / "app"

        def main(*words: str | Path) -> None:
            environ = {"APP_ENV": "production", "APP_DIR": str(app_dir)}
            run(project, sys.executable, "main.py", *words, environ=environ)

        main("appdir", "make")
        main("db", "upgrade")
        writer, whole = Writer(app_dir), 0
        writer.start()
        try:
            for number in rounds(RESTORES, "restores"):
                committed, restored = writer.committed, folder / f"restored-{number}"
                main("backup", "create")
                main("backup", "restore", max((app_dir / "backups").iterdir()), "--to", restored)
                if not writer.is_alive():
                    raise RuntimeError("the writer has ended")
                whole += is_whole(restored, committed)
        finally:
            writer.stopped.set()
            writer.join()
    yield BAD.found(RESTORES - whole)
