"""Log lines: readable ones for people, JSON for programs. `config/logging.json` chooses between the two."""

import fcntl
import json
import logging
import logging.config
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from config import ConfigError, Settings

COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

_NAMES = r"password|passwd|passphrase|secret|token|authorization|cookie|dsn|(?:api|access|private)[_-]?key|session_key"
SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
# No two repetitions follow each other that could share a text: one that somebody sent must not keep us busy.
PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]{0,200}):\S{0,1000}@")
# In a message: password=…, 'token': '…', {\"secret\": \"…, passwords: […], Authorization: Bearer ….
SECRET_IN_TEXT = re.compile(
    rf"""((?:{_NAMES})[\w-]{{0,30}}\\?["']?\s{{0,5}}[=:]\s{{0,5}})"""
    r"""(?:\[[^\]]*\]?|Digest[^\r\n]*|b?(?P<quote>\\?["'])(?:(?!(?P=quote))(?:\\.|.))*(?P=quote)?|"""
    r"""(?:(?:Bearer|Basic|Token)\s{1,5})?[^\s,;&"'<>)}\]]+)""",
    re.IGNORECASE | re.DOTALL,
)
# A link would lead the log elsewhere, and a pipe would wait for a reader.
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# What we write ourselves.
PLAIN = {"level", "logger", "timestamp"}

logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def people_formatter() -> logging.Formatter:
    """One line a record, coloured on a terminal."""
    plain = structlog.dev.plain_traceback
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return _formatter(structlog.processors.format_exc_info, redact, _keep_to_one_line, renderer)


def json_formatter() -> logging.Formatter:
    """One JSON object a record."""
    # Local variables hold passwords, so tracebacks come without them.
    traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return _formatter(structlog.processors.ExceptionRenderer(traceback), redact, _to_json)


def set_up(settings: Settings) -> None:
    """Apply `config/logging.json` to this process.

    Raises:
        ConfigError: it is not a `logging.config.dictConfig`.
    """
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    try:
        logging.config.dictConfig(settings.logging)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"config/logging.json: logging: {error.__cause__ or error}") from None


class SharedFile(logging.Handler):
    """Adds records to a file that other processes write as well.

    The file is opened for each record, so that it may be renamed or removed at any time. While it cannot be written,
    the log says so once.

    Args:
        path: the file; its folder is made if it is missing.
        limit: size in bytes at which it is renamed, `errors.jsonl` to `errors.1.jsonl`. 0: never.
    """

    def __init__(self, path: str, limit: int = 0, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self.path = Path(path)
        self.older = self.path.with_name(f"{self.path.stem}.1{self.path.suffix}")
        self.limit = limit
        self.works = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001  (so does every handler of the standard library)
            self.handleError(record)
            return
        try:
            while not self._write(line):
                pass
            self.works = True
        except OSError as error:
            if self.works:
                self.works = False
                # A warning, because an error would come back to this file.
                logger.warning("%s: cannot be written: %s", self.path, error.strerror)

    def _write(self, line: bytes) -> bool:
        """False if the file was renamed, here or by somebody else, before it was locked."""
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(self.path, FLAGS, 0o640)
        with os.fdopen(descriptor, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            try:
                if not os.path.samestat(status, self.path.lstat()):
                    return False
            except FileNotFoundError:
                return False
            if self.limit and status.st_size and status.st_size + len(line) > self.limit:
                self.path.replace(self.older)
                return False
            file.write(line)
        return True


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide secrets: values whose names say so, at any depth, and passwords in texts and URLs."""
    for name, value in event.items():
        if name not in PLAIN:
            event[name] = hide(value, name)
    return event


def hide(value: Any, name: str = "") -> Any:
    """`value` as it may be logged or sent elsewhere.

    Args:
        value: anything; what is not a text, a mapping or a sequence stays as it is.
        name: what it is called.
    """
    if value is not None and _is_secret(name):
        return "***"
    if isinstance(value, str):
        return hide_in_text(value)
    if isinstance(value, Mapping):
        return {key: hide(inner, key if isinstance(key, str) else "") for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [hide(inner) for inner in value]
    return value


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name) is not None


def hide_in_text(text: str) -> str:
    """A message or the text of an error without the secrets that can be told by what stands before them."""
    if "://" in text:
        text = PASSWORD_IN_URL.sub(r"\1:***@", text)
    # A secret in a text has one of these before it; most texts have neither.
    if ":" in text or "=" in text:
        text = SECRET_IN_TEXT.sub(r"\1***", text)
    return text


def printable(text: str) -> str:
    """A text in which line ends and whatever else would command a terminal can be seen."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _keep_to_one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Nobody can write a line that looks like another record: only tracebacks have several, and are indented."""
    long = {name: str(event.pop(name)) for name in ("exception", "stack") if name in event}
    line = {
        printable(str(name)): printable(value) if isinstance(value, str) else value for name, value in event.items()
    }
    line["event"] = printable(str(event.get("event")))
    for name, text in long.items():
        line[name] = "\n".join(f"    {printable(part)}" for part in text.split("\n"))
    return line


def _to_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = _encode(event).decode()
    except (TypeError, ValueError, RecursionError):
        line = ""  # Keys that JSON does not know, halves of characters: the standard library has an answer to them.
    # Beyond ASCII there are line ends that JSON leaves as they are.
    return line if line.isascii() and line else json.dumps(event, default=repr, skipkeys=True)


def _formatter(*renderers: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=COMMON,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
