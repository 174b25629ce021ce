"""The latest errors of this machine, from the log that all its processes write."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

# Of a large file, only this many bytes at its end are read.
TAIL = 256 * 1024


class LoggedError(msgspec.Struct):
    """A line of the log; `exception` is a traceback, and `times` how often it had come within the hour."""

    timestamp: datetime
    event: str
    logger: str = ""
    request_id: str = ""
    exception: str = ""
    times: int = 1


def errors(path: Path) -> Iterator[LoggedError]:
    """The errors at the end of the log, the latest first.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - TAIL))
        lines = file.readlines()
    for line in reversed(lines):
        # The first one may be the end of a line.
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=LoggedError)
