"""Reads `.env` files as python-dotenv does, and tells which line is broken instead of leaving it out."""

import io
import re
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from config.sources import ConfigError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LINE_END = re.compile(r"\r\n|\r|\n")
ASSIGNMENT = re.compile(rf"\s*(?:export\s+)?({NAME.pattern})\s*=")


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file; none if there is no file. Nothing in a value is filled in.

    Raises:
        ConfigError: the file cannot be read, or as `parse_env`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return {binding.key: binding.value or "" for binding in parse_env(content, path) if binding.key}


def parse_env(content: bytes, path: Path) -> list[Binding]:
    """The variables and comments of a file in order, each with its text; all these texts together are the file.

    Raises:
        ConfigError: with a line for each line that is broken, or whose name is there already. A value, which may be a
            secret, is never shown.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: cannot be read: line {line} is not UTF-8") from None
    problems = []
    lines: dict[str, int] = {}
    bindings = list(parse_stream(io.StringIO(text, newline="")))
    for binding in bindings:
        line = _line(binding)
        if problem := _problem(binding):
            problems.append(f"{path}:{line}: {problem}; expected NAME=value")
        elif (name := binding.key) and lines.setdefault(name, line) != line:
            problems.append(
                f"{path}:{line}: {name}: found a second time, first in line {lines[name]}; keep one of them"
            )
    if problems:
        raise ConfigError(*problems)
    return bindings


def _problem(binding: Binding) -> str | None:
    if binding.error:
        if assignment := ASSIGNMENT.match(binding.original.string):
            return f"{assignment[1]}: found quotes that do not end, or something behind them"
        return "this line: found no name and value"
    if binding.key is None:
        return None
    if binding.value is None:
        return "this line: found no `=`"
    if not NAME.fullmatch(binding.key):
        return "this line: found a name with more than letters, digits and underscores"
    return None


def _line(binding: Binding) -> int:
    """Where it stands; python-dotenv counts the empty lines before it as its own."""
    text = binding.original.string
    return binding.original.line + len(LINE_END.findall(text[: len(text) - len(text.lstrip())]))
