"""Which paths a storage accepts, and what it knows of the file at one."""

import re
from datetime import datetime
from typing import NamedTuple

from storage.errors import InvalidPath

LONGEST_NAME = 255
LONGEST_PATH = 1024
# The local backend writes files under a name that begins like this. It is reserved on every backend.
PARTIAL = ".partial-"
# Unicode's control characters, line separators, lone surrogates, and what is invisible or turns text around. The two
# joiners, U+200C and U+200D, are allowed: Persian needs them, and so do many emoji.
FORBIDDEN = re.compile(
    "[\\\\\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


class Entry(NamedTuple):
    """A file: its path, its size in bytes, when it was written (UTC), and a tag that changes with every write."""

    path: str
    size: int
    modified: datetime
    etag: str


def normalise(path: str, *, folder: bool = False) -> str:
    """The path as backends see it: relative, `/` between names, without `.` and empty names.

    Raises:
        InvalidPath: the path is absolute, climbs with `..`, is empty though no `folder` is meant, is too long, holds a
            backslash, a control character or text that is not Unicode, or has a reserved name.
    """
    if FORBIDDEN.search(path):
        raise InvalidPath(f"{path!r}: holds a backslash, a control character or text that is not Unicode")
    if path.startswith("/"):
        raise InvalidPath(f"{path!r}: absolute, expected a relative path")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or not (names or folder):
        raise InvalidPath(f"{path!r}: expected names with / between them, and without `..`")
    size = len(path.encode())
    if size > LONGEST_PATH or (
        size > LONGEST_NAME and max((len(name.encode()) for name in names), default=0) > LONGEST_NAME
    ):
        raise InvalidPath(f"{path[:40]!r}…: longer than {LONGEST_PATH} bytes, or a name longer than {LONGEST_NAME}")
    normal = "/".join(names)
    if f"/{PARTIAL}" in f"/{normal}":
        raise InvalidPath(f"{path!r}: names that begin with {PARTIAL} are reserved")
    return normal
