"""Makes one storage hold what another one holds."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from storage.backend import Entry
from storage.file import FileBackend
from storage.storage import Storage
from storage.streams import CHUNK


class Step(NamedTuple):
    """What is to be done at the target, with which file."""

    action: Literal["copy", "remove"]
    entry: Entry


def overlap(source: Storage, target: Storage) -> bool:
    """Whether one of two local storages lies in the other, so that copying would feed itself."""
    first, second = source.backend, target.backend
    if not (isinstance(first, FileBackend) and isinstance(second, FileBackend)):
        return False
    return first.inside.startswith(second.inside) or second.inside.startswith(first.inside)


def plan(source: Storage, target: Storage, *, delete: bool = False) -> Iterator[Step]:
    """What the target lacks: files that are not there, have another size, or are older than at the source.

    Args:
        source: where files are read.
        target: where they shall be.
        delete: whether files that only the target has are removed.
    """
    others = target.list()
    other = next(others, None)
    # Both lists are sorted, so neither has to be held.
    for entry in source.list():
        while other and other.path < entry.path:
            if delete:
                yield Step("remove", other)
            other = next(others, None)
        if not (other and other.path == entry.path and other.size == entry.size and other.modified >= entry.modified):
            yield Step("copy", entry)
        if other and other.path == entry.path:
            other = next(others, None)
    while delete and other:
        yield Step("remove", other)
        other = next(others, None)


def perform(step: Step, source: Storage, target: Storage, advance: Callable[[int], object] = lambda _: None) -> None:
    """Do one step, and tell `advance` of every piece that is copied how many bytes it had."""
    path = step.entry.path
    if step.action == "remove":
        target.remove(path)
        return
    with source.open(path) as reader, target.open(path, "wb") as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
            advance(len(chunk))
