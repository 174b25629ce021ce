"""The one place that decides which paths a storage accepts."""

import unicodedata

from storage.errors import InvalidPath

LONGEST_NAME = 255
LONGEST_PATH = 1024
# Files that are being written; no backend shows them.
PARTIAL = ".partial-"


def normalise(path: str, *, folder: bool = False) -> str:
    """The path as backends see it: relative, `/` between names, without `.` and empty names.

    Args:
        path: what the caller asked for.
        folder: whether the root, an empty path, is allowed.

    Raises:
        InvalidPath: the path is absolute, climbs with `..`, is empty, is longer than 1024 bytes or has a name longer
            than 255 bytes, holds a backslash, a control character or text that is not Unicode, or has a name that
            begins like those of files being written.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidPath(f"{path!r}: not valid Unicode") from None
    if path.startswith("/"):
        raise InvalidPath(f"{path!r}: absolute, expected a relative path")
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in path):
        raise InvalidPath(f"{path!r}: holds a backslash or a control character")
    if size > LONGEST_PATH:
        raise InvalidPath(f"{path[:40]!r}…: longer than {LONGEST_PATH} bytes")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise InvalidPath(f"{path!r}: `..` would leave the folder")
    if not names and not folder:
        raise InvalidPath(f"{path!r}: expected a file's path")
    if any(name.startswith(PARTIAL) for name in names):
        raise InvalidPath(f"{path!r}: names with {PARTIAL} are reserved")
    if any(len(name.encode()) > LONGEST_NAME for name in names):
        raise InvalidPath(f"{path[:40]!r}…: a name longer than {LONGEST_NAME} bytes")
    return "/".join(names)
