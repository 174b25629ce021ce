"""Log lines: readable ones for people, JSON for programs. `config/logging.json` chooses between the two."""

import logging
import logging.config
import sys

import structlog
from structlog.typing import Processor

from config import ConfigError, Settings

COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def people_formatter() -> logging.Formatter:
    """One line a record, coloured on a terminal."""
    plain = structlog.dev.plain_traceback
    return _formatter(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain))


def json_formatter() -> logging.Formatter:
    """One JSON object a record."""
    # Local variables hold passwords, so tracebacks come without them.
    traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return _formatter(structlog.processors.ExceptionRenderer(traceback), structlog.processors.JSONRenderer())


def set_up(settings: Settings) -> None:
    """Apply `config/logging.json` to this process.

    Raises:
        ConfigError: it is not a `logging.config.dictConfig`.
    """
    structlog.configure(
        processors=[*COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    try:
        logging.config.dictConfig(settings.logging)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"config/logging.json: logging: {error.__cause__ or error}") from None


def _formatter(*renderers: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=COMMON,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
