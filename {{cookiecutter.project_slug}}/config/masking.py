"""Values as they may be shown: by `config show`, in errors, in log lines and error reports."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

NAMES = (
    "passw(?:or)?d|passphrase|secret|token|credential|authorization|cookie|dsn|signature"
    "|(?:access|account|api|private|session|signing)[_-]?key"
)
SECRET_NAME = re.compile(NAMES, re.IGNORECASE)
# No two repetitions follow each other that could share a text: a long one that somebody sent must not keep us busy.
PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]{0,200}):\S{0,1000}@")
SECRET_IN_QUERY = re.compile(rf"((?:^|[?&])[\w.-]{{0,50}}(?:{NAMES})[\w.-]{{0,50}}=)[^&\s]*", re.IGNORECASE)


def mask(name: str, value: Any) -> Any:
    """`value` of that name without secrets, at any depth: `***` for what is called so, URLs without passwords."""
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(name):
        return "***" if value != "" else value
    if isinstance(value, str):
        if "@" in value:
            value = PASSWORD_IN_URL.sub(r"\1:***@", value)
        return SECRET_IN_QUERY.sub(r"\1***", value) if "=" in value else value
    if isinstance(value, Mapping):
        return {key: mask(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mask("", inner) for inner in value]
    return value


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name) is not None and not name.endswith(("length", "lifetime"))


def printable(text: str) -> str:
    """`text` in one line: what would end it, or command a terminal, is written as in Python's own texts."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
