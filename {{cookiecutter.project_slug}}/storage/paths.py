"""The one place that decides which paths a storage accepts."""

import re
import secrets

from storage.errors import InvalidPath

LONGEST_NAME = 255
LONGEST_PATH = 1024
# The folder of files that are being written; no backend shows it.
PARTIAL = ".partial"
# Unicode's control characters, line separators, lone surrogates, and what is invisible or turns text around. The two
# joiners, U+200C and U+200D, may stand: Persian needs them, and so do many emoji.
FORBIDDEN = re.compile(
    "[\\\\\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def new_partial() -> str:
    """The path of a file that is about to be written."""
    return f"{PARTIAL}/{secrets.token_hex(16)}"


def is_partial(path: str) -> bool:
    """Whether a path is one of those. A stranger's file in a folder of that name is not, and is never cleaned up."""
    return re.fullmatch(rf"{re.escape(PARTIAL)}/[0-9a-f]{{32}}", path) is not None


def normalise(path: str, *, folder: bool = False) -> str:
    """The path as backends see it: relative, `/` between names, without `.` and empty names.

    Args:
        path: what the caller asked for.
        folder: whether the root, an empty path, is allowed.

    Raises:
        InvalidPath: the path is absolute, climbs with `..`, is empty, is longer than 1024 bytes or has a name longer
            than 255 bytes, holds a backslash, a control character or text that is not Unicode, or lies in the folder
            of files that are being written.
    """
    if FORBIDDEN.search(path):
        raise InvalidPath(f"{path!r}: holds a backslash, a control character or text that is not Unicode")
    if path.startswith("/"):
        raise InvalidPath(f"{path!r}: absolute, expected a relative path")
    if len(path.encode()) > LONGEST_PATH:
        raise InvalidPath(f"{path[:40]!r}…: longer than {LONGEST_PATH} bytes")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise InvalidPath(f"{path!r}: `..` would leave the folder")
    if not names and not folder:
        raise InvalidPath(f"{path!r}: expected a file's path")
    if any(len(name.encode()) > LONGEST_NAME for name in names):
        raise InvalidPath(f"{path[:40]!r}…: a name longer than {LONGEST_NAME} bytes")
    if names[:1] == [PARTIAL]:
        raise InvalidPath(f"{path!r}: {PARTIAL} is reserved")
    return "/".join(names)
