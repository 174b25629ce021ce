"""How much room the app folder and the local disks take."""

import os
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from config import AppDir
from database import utc_now
from storage.disks import Disks
from storage.file import FileBackend

# Walking through a large folder takes a while, and keeps its disk busy.
EVERY = timedelta(minutes=5)
# Seconds that a page waits for it.
PATIENCE = 0.2


class Folder(NamedTuple):
    """A folder with all that is in it, and the free space where it is, in bytes. `whole`: all of it could be read."""

    name: str
    files: int
    size: int
    free: int
    whole: bool


class Measured(NamedTuple):
    """What was found, and when."""

    folders: list[Folder]
    at: datetime


class Sizes:
    """Measures an installation's folders in a thread of its own, at most every few minutes."""

    def __init__(self, app_dir: AppDir, disks: Disks) -> None:
        self.app_dir = app_dir
        self.disks = disks
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.latest: Measured | None = None

    def get(self) -> Measured | None:
        """The latest sizes; None while they are measured for the first time."""
        with self.lock:
            running = self.thread is not None and self.thread.is_alive()
            if not running and (self.latest is None or utc_now() - self.latest.at > EVERY):
                self.thread = threading.Thread(target=self._measure, name="sizes", daemon=True)
                self.thread.start()
            thread = self.thread
        if thread:
            thread.join(PATIENCE)
        return self.latest

    def _measure(self) -> None:
        folders = [measure(name, path) for name, path in self._places() if path.is_dir()]
        self.latest = Measured(folders, utc_now())

    def _places(self) -> Iterator[tuple[str, Path]]:
        yield "app folder", self.app_dir.path
        if self.app_dir.path.is_dir():
            yield from (
                (f"{path.name}/", path) for path in sorted(self.app_dir.path.iterdir()) if not path.is_symlink()
            )
        for name, disk in self.disks.items():
            if isinstance(disk.backend, FileBackend):
                yield f"disk {name}", Path(disk.backend.root)


def measure(name: str, folder: Path) -> Folder:
    """Count the files of a folder and their bytes. Links are not followed."""
    files = size = 0
    unreadable: list[OSError] = []
    for path, _, names in os.walk(folder, onerror=unreadable.append):
        for file in names:
            try:
                size += os.lstat(f"{path}/{file}").st_size
                files += 1
            except FileNotFoundError:
                continue  # Removed meanwhile.
            except OSError as error:
                unreadable.append(error)
    return Folder(name, files, size, shutil.disk_usage(folder).free, not unreadable)
