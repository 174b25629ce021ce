"""The disks that the commands use, in an app folder of the test's own."""

from pathlib import Path

import pytest

from config import load
from storage.disks import Disks, open_disks


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    """The commands run in the folder that the app folder lies in."""
    for name in ("SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APP_ENV", "testing")
    monkeypatch.setenv("APP_DIR", str(tmp_path / "app"))
    monkeypatch.chdir(tmp_path)
    return open_disks(load())
