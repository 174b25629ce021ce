"""The latest errors of this machine, from the log that all its processes write."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

# Of a large file, only this many bytes at its end are read.
TAIL = 256 * 1024


class LoggedError(NamedTuple):
    """A line of the log. `position` is where in the file it begins, which no other line shares."""

    position: int
    time: datetime | None
    level: str
    logger: str
    event: str
    request_id: str
    exception: str


def recent_errors(path: Path, limit: int) -> list[LoggedError]:
    """The last lines of the log, the latest first. Lines that are no JSON objects are left out.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL)
            file.seek(start)
            tail = file.read(TAIL)
    except FileNotFoundError:
        return []
    found = []
    # The first one may be the end of a line, which is no JSON object.
    for line in tail.splitlines(keepends=True):
        if entry := _entry(start, line):
            found.append(entry)
        start += len(line)
    return found[: -limit - 1 : -1]


def _entry(position: int, line: bytes) -> LoggedError | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    level, logger, event, request_id = (_text(fields.get(name)) for name in ("level", "logger", "event", "request_id"))
    time, exception = _time(fields.get("timestamp")), _traceback(fields.get("exception"))
    return LoggedError(position, time, level, logger, event, request_id, exception)


def _traceback(value: Any) -> str:
    """What `app.logs` writes as data, the way Python prints it."""
    try:
        return "\n\n".join("\n".join((*map(_frame, error["frames"]), _last_line(error))) for error in reversed(value))
    except (KeyError, TypeError):
        return _text(value)


def _frame(frame: dict[str, Any]) -> str:
    return f'File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}'


def _last_line(error: dict[str, Any]) -> str:
    return f"{error['exc_type']}: {error['exc_value']}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
