"""Values as they may be shown: by `config show`, in errors, in log lines and error reports."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

NAMES = (
    r"passw(?:or)?d|passphrase|\bpass\b|\bpwd\b|secret|token|credential|authorization|cookie|dsn|signature|\bsig\b"
    "|(?:access|account|api|private|session|signing)[_-]?key"
)
SECRET_NAME = re.compile(NAMES, re.IGNORECASE)
# No two repetitions follow each other that could share a text: a long one that somebody sent must not keep us busy.
IN_TEXT = (
    # A password in a URL, or what stands alone in its place.
    re.compile(r"(://[^\s:/@]{0,200}:)\S{0,1000}@"),
    re.compile(r"(://)[^\s:/@?]{1,200}@"),
    re.compile(r"(\b[\w.-]{1,100}:)[^\s:/@]{1,200}@(?=[\w.-])"),
    # What stands behind a name, also in JSON and as Python shows it.
    re.compile(
        rf"((?:^|[?&;,\s'\"({{])[\w.-]{{0,50}}(?:{NAMES})[\w.-]{{0,50}}(?:=|['\"]\s{{0,3}}:\s{{0,3}}['\"]?))[^&;\s]*",
        re.IGNORECASE,
    ),
    # The token of a link in a mail.
    re.compile(r"(/link/[a-z]{1,20}/)[^\s/?'\"]{1,1000}"),
    # A header, to its end.
    re.compile(r"((?:authorization|cookie|api-?key)['\"]?\s{0,3}[:,]\s{0,3}['\"]?)[^'\"\r\n]+", re.IGNORECASE),
    re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)(?:[^-]|-(?!----)){1,20000}"),
)
# Most texts have none of these, and are left alone at once.
SIGNS = frozenset("=:,-")


def mask(name: str, value: Any) -> Any:
    """`value` of that name without secrets, at any depth: `***` for what is called so, URLs without passwords."""
    if value is None or isinstance(value, bool):
        return value
    if _is_secret(name):
        return "***" if value != "" else value
    if isinstance(value, str):
        for pattern in () if SIGNS.isdisjoint(value) else IN_TEXT:
            value = pattern.sub(_hidden, value)
        return value
    if isinstance(value, Mapping):
        return {key: mask(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mask("", inner) for inner in value]
    return mask(name, repr(value)) if isinstance(value, Exception | bytes) else value


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1]}***{'@' * found[0].endswith('@')}"


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name) is not None and not name.endswith(("length", "lifetime"))


def printable(text: str) -> str:
    """`text` in one line: what would end it, or command a terminal, is written as in Python's own texts."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
