"""What the service relies on, whatever the backend: whole files, one winner, and no way out of the disk."""

from pathlib import Path

import pytest

from storage import AlreadyExists, InvalidPath, NotFound, Storage


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/disk" if request.param == "file" else "memory://")


def test_a_file_is_written_read_listed_moved_and_removed(storage: Storage) -> None:
    storage.write("reports/2026.csv", b"a,b\n")
    storage.move("reports/2026.csv", "old/2026.csv")
    assert [entry.path for entry in storage.list()] == ["old/2026.csv"]
    assert storage.read("old/2026.csv") == b"a,b\n"
    storage.remove("old/2026.csv")
    assert not storage.exists("old/2026.csv")
    with pytest.raises(NotFound):
        storage.read("old/2026.csv")


def test_a_file_that_is_there_can_be_protected(storage: Storage) -> None:
    storage.write("one", b"first", overwrite=False)
    with pytest.raises(AlreadyExists):
        storage.write("one", b"second", overwrite=False)
    assert storage.read("one") == b"first"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "", "a\0b"])
def test_a_path_leads_nowhere_else(storage: Storage, path: str) -> None:
    with pytest.raises(InvalidPath):
        storage.write(path, b"")
