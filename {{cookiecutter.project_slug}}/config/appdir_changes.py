"""Makes and mends the app folder.

Root may do so in folders that the service writes, and that somebody who has broken into it could fill with links. So
everything is changed through descriptors that were opened without following any.
"""

import errno
import fcntl
import grp
import json
import os
import pwd
import secrets
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from config.appdir import FILES, FOLDERS, FORMAT, PARTS, AppDir, AppDirError, application
from config.env_file import parse_env
from config.sources import ConfigError

SECRET = "SECRET_KEY"  # noqa: S105  (its name)
# A file is written under its name with this behind it, and renamed.
UNFINISHED = ".new"
# A disk's own.
NOT_OURS = {"lost+found"}
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

README = """\
# The app folder of {application}

Everything that this installation of {application} knows is in this folder; a backup of it is enough.

| | what it is for | in backups | may be deleted |
|---|---|---|---|
{rows}

`python main.py appdir check` tells what is wrong in here, and `python main.py appdir make` mends it. With what is in
`.env`, anybody can become any user of the service: keep it secret.
"""


class Owner(NamedTuple):
    """Of a folder or file, in numbers."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{_user_name(self.uid)}:{_group_name(self.gid)}"


class Wanted(NamedTuple):
    """What a folder or file of ours has to be; `name` is its path in the app folder."""

    name: str
    mode: int
    owner: Owner

    @property
    def is_file(self) -> bool:
        """Everything else is a folder."""
        return self.name in FILES


class Change(NamedTuple):
    """One thing that is wrong, and what is done about it: `done` follows on "was" or "would be"."""

    path: Path
    found: str
    done: str
    wanted: Wanted
    text: str | None = None
    """What is written into a file."""


class Finding(NamedTuple):
    """One thing that is wrong, and the command that mends it."""

    path: Path
    found: str
    mend: str


def make(folder: AppDir, user: str | None, group: str | None, *, dry_run: bool) -> list[Change]:
    """As `AppDir.make`."""
    slug = application()
    try:
        wanted = _wanted(folder, user, group, slug)
        changes = _changes(folder, wanted, slug)
        if problems := [problem for change in changes if (problem := _forbidden(change))]:
            raise AppDirError(*dict.fromkeys(problems))
        if not changes or dry_run:
            return changes
        made = [] if _status(folder.path) else changes[:1]
        with _locked(folder, wanted[0]) as root:
            # Somebody else may have been here first.
            changes = _changes(folder, wanted, slug)
            for change in changes:
                _apply(change, root)
            return made + changes
    except OSError as error:
        raise AppDirError(f"{error.filename or folder.path}: cannot be made: {error.strerror}") from None


def check(folder: AppDir, user: str | None, group: str | None, *, mend: str) -> list[Finding]:
    """As `AppDir.check`."""
    slug = application()
    try:
        changes = _changes(folder, _wanted(folder, user, group, slug), slug)
        if not _status(folder.path):
            changes = changes[:1]
        findings = [Finding(change.path, change.found, mend) for change in changes]
        findings += [
            Finding(path, "others may write it", f"chmod o-w {shlex.quote(str(path))}")
            for path in sorted(folder.config.rglob("*"))
            if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH
        ]
    except OSError as error:
        raise AppDirError(f"{error.filename or folder.path}: cannot be read: {error.strerror}") from None
    return findings


def _wanted(folder: AppDir, user: str | None, group: str | None, slug: str) -> list[Wanted]:
    """The app folder, and everything in it that is ours.

    Raises:
        AppDirError: there is no such user or group, or what is there is not ours or in our way.
    """
    problems = []
    uid = gid = None
    if user is not None:
        try:
            account = pwd.getpwnam(user)
            uid, gid = account.pw_uid, account.pw_gid
        except KeyError:
            problems.append(f"--user: found {user!r}, expected a user of this machine; make one with `useradd`")
    if group is not None:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            problems.append(f"--group: found {group!r}, expected a group of this machine; make one with `groupadd`")
    if problems := [*problems, *_in_the_way(folder, slug)]:
        raise AppDirError(*problems)

    there, data, env = (_status(path) for path in (folder.path, folder.data, folder.env_file))
    if gid is None:
        admin = Owner(there.st_uid, there.st_gid) if there else Owner(os.geteuid(), _inherited_group(folder.path))
    else:
        admin = Owner(os.geteuid(), gid)
    service = Owner(uid if uid is not None else data.st_uid if data else admin.uid, admin.gid)
    if gid is None and env and stat.S_IMODE(env.st_mode) in (0o600, 0o640):
        env_mode = stat.S_IMODE(env.st_mode)
    else:
        env_mode = 0o600 if gid is None and service.uid == admin.uid else 0o640

    wanted = [Wanted("", 0o750, admin), Wanted(folder.marker.name, 0o640, admin)]
    wanted += [Wanted(name, part.mode, service if part.written else admin) for name, part in FOLDERS.items()]
    return [*wanted, Wanted("README.md", 0o640, admin), Wanted(folder.env_file.name, env_mode, admin)]


def _in_the_way(folder: AppDir, slug: str) -> Iterator[str]:
    """A line for each thing for which the folder cannot be made or used."""
    if folder.path == Path():
        yield "--path: found nothing, expected a folder"
        return
    ancestor = _nearest(folder.path)
    if not ancestor.is_dir():
        yield f"{ancestor}: expected a folder, found a file; move it away"
        return
    if problem := _wrong_kind(folder.path, is_file=False):
        yield problem
        return
    if _status(folder.path) is None:
        return
    if problem := folder.stranger(slug):
        yield problem
    elif not folder.marker.exists():
        ours = {*PARTS, *FILES, *(f"{name}{UNFINISHED}" for name in FILES), *NOT_OURS}
        if strange := sorted({path.name for path in folder.path.iterdir()} - ours):
            named = ", ".join(map(repr, strange[:3])) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
            yield f"{folder.path}: holds what is not ours, {named}; use an empty folder"
    wrong = [folder.marker.name]
    for name in (*FILES, *FOLDERS):
        if name.partition("/")[0] not in wrong and (problem := _wrong_kind(folder.path / name, is_file=name in FILES)):
            wrong.append(name)
            yield problem
    if folder.env_file.name not in wrong and _status(folder.env_file):
        try:
            parse_env(_read(folder.env_file), folder.env_file)
        except ConfigError as error:
            yield from error.problems


def _wrong_kind(path: Path, *, is_file: bool) -> str | None:
    status = _status(path)
    if status is None:
        return None
    expected, is_kind = ("a file", stat.S_ISREG) if is_file else ("a folder", stat.S_ISDIR)
    if stat.S_ISLNK(status.st_mode):
        return f"{path}: expected {expected}, found a link to {os.readlink(path)!r}; move it away"
    if not is_kind(status.st_mode):
        return f"{path}: expected {expected}, found {'a folder' if path.is_dir() else 'a file'}; move it away"
    if is_file and status.st_nlink > 1:
        return f"{path}: expected a file of its own, found one that has another name as well; copy it"
    return None


def _changes(folder: AppDir, wanted: Sequence[Wanted], slug: str) -> list[Change]:
    """Everything that is not as it should be."""
    changes = []
    for want in wanted:
        path = folder.path / want.name
        status = _status(path)
        if status is None:
            text = _new_text(want.name, slug) if want.is_file else None
            done = "written with a new secret" if path == folder.env_file else "written" if want.is_file else "made"
            changes.append(Change(path, "is missing", done, want, text))
            continue
        if path == folder.env_file and (text := _with_secret(path)):
            changes.append(Change(path, f"has no {SECRET}", f"given a new {SECRET}", want, text))
        if (mode := stat.S_IMODE(status.st_mode) & 0o777) != want.mode:
            found = f"mode {mode:04o}, expected {want.mode:04o}"
            changes.append(Change(path, found, f"set to mode {want.mode:04o} from {mode:04o}", want))
        if (owner := Owner(status.st_uid, status.st_gid)) != want.owner:
            found = f"owner {owner}, expected {want.owner}"
            changes.append(Change(path, found, f"given to {want.owner} from {owner}", want))
    return changes


def _new_text(name: str, slug: str) -> str:
    if name == ".env":
        return _new_secret()
    if name == "appdir.json":
        return json.dumps({"application": slug, "format": FORMAT}) + "\n"
    rows = [f"| `{name}` | {purpose} | yes | no |" for name, purpose in FILES.items()]
    for name, part in PARTS.items():
        answers = " | ".join("yes" if answer else "no" for answer in (part.in_backups, part.disposable))
        rows.append(f"| `{name}/` | {part.purpose} | {answers} |")
    return README.format(application=slug, rows="\n".join(rows))


def _new_secret() -> str:
    return f"{SECRET}={secrets.token_urlsafe(32)}\n"


def _with_secret(path: Path) -> str | None:
    """The file's text with a new secret; None if it has one."""
    bindings = parse_env(_read(path), path)
    if any(binding.key == SECRET and binding.value for binding in bindings):
        return None
    text = "".join(binding.original.string for binding in bindings if binding.key != SECRET)
    return f"{text.rstrip()}\n{_new_secret()}" if text.strip() else _new_secret()


def _forbidden(change: Change) -> str | None:
    """Why this process may not do that."""
    path, owner, me = change.path, change.wanted.owner, os.geteuid()
    status = _status(path)
    ancestor = _nearest(path)
    if (status is None or change.text) and not os.access(ancestor, os.W_OK | os.X_OK):
        return f"{ancestor}: cannot be written by {_user_name(me)}; run this as root"
    if me == 0:
        return None
    if status and status.st_uid != me:
        return f"{path}: belongs to {_user_name(status.st_uid)}, not to {_user_name(me)}; run this as root"
    if owner.uid != me or owner.gid not in (_inherited_group(path), os.getegid(), *os.getgroups()):
        return f"{path}: cannot be given to {owner} by {_user_name(me)}; run this as root"
    return None


@contextmanager
def _locked(folder: AppDir, want: Wanted) -> Iterator[int]:
    """The app folder's descriptor. The folder is made if it is missing; others who make it wait."""
    for parent in reversed(folder.path.parents):
        if not parent.exists():
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)
    made = not folder.path.exists()
    if made:
        folder.path.mkdir(0o700, exist_ok=True)
    with _opened(folder.path, FOLDER) as root:
        fcntl.flock(root, fcntl.LOCK_EX)
        if made:
            _settle(root, want)
        yield root


def _apply(change: Change, root: int) -> None:
    want = change.wanted
    parent, name = os.path.split(want.name)
    try:
        # Parts have one name, so that no link can be on the way.
        with _opened(parent or ".", FOLDER, root) as place:
            if change.text is not None:
                _write(place, name, change.text, want)
                return
            if change.done == "made":
                os.mkdir(name, 0o700, dir_fd=place)
            with _opened(name or ".", FILE if want.is_file else FOLDER, place) as descriptor:
                _settle(descriptor, want)
    except OSError as error:
        raise AppDirError(f"{change.path}: cannot be {change.done}: {error.strerror}") from None


def _settle(descriptor: int, want: Wanted) -> None:
    """Give an open folder or file its owner and mode. Bits that make a group or its owners stick are left alone."""
    status = os.fstat(descriptor)
    if want.is_file and (not stat.S_ISREG(status.st_mode) or status.st_nlink > 1):
        raise OSError(errno.EMLINK, "it is no longer a file of its own")
    if (status.st_uid, status.st_gid) != want.owner:
        os.fchown(descriptor, *want.owner)
    os.fchmod(descriptor, status.st_mode & (stat.S_ISGID | stat.S_ISVTX) | want.mode)


def _write(folder: int, name: str, text: str, want: Wanted) -> None:
    """Give a folder a file, whole or not at all."""
    unfinished = f"{name}{UNFINISHED}"
    with suppress(FileNotFoundError):
        os.unlink(unfinished, dir_fd=folder)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode())
        file.flush()
        _settle(descriptor, want)
        os.fsync(descriptor)
    os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


@contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    with _opened(path, FILE) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _nearest(path: Path) -> Path:
    """The folder that a path would be made in, or that folder's nearest ancestor that is there."""
    return next((parent for parent in path.parents if parent.exists()), path)


def _inherited_group(path: Path) -> int:
    """The group of what is made there."""
    status = _nearest(path).stat()
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
