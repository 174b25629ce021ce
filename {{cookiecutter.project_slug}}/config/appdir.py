"""The app folder: the one place that holds an installation's config, data and logs."""

import grp
import os
import pwd
import re
import secrets
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from config.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
MAKE = "python main.py appdir make"
MODE = 0o750
SECRET = re.compile(r"(?m)^SECRET_KEY=.")


class Part(NamedTuple):
    """A folder in the app folder. The service writes the ones that are `written`; the others it only reads."""

    written: bool = True
    in_backups: bool = True


PARTS = {
    "config": Part(written=False),
    "data": Part(),
    "media": Part(),
    "static": Part(written=False, in_backups=False),
    "logs": Part(in_backups=False),
    "work": Part(in_backups=False),
    "backups": Part(in_backups=False),
}


@dataclass(frozen=True)
class AppDir:
    """Paths inside one app folder. Nothing else in the service builds them."""

    path: Path

    @property
    def env_file(self) -> Path:
        """Secrets and environment variables of this installation."""
        return self.path / ".env"

    @property
    def config(self) -> Path:
        """Settings that go before those of the project."""
        return self.path / "config"

    @property
    def data(self) -> Path:
        """The SQLite database, and files that only the service reads."""
        return self.path / "data"

    @property
    def database(self) -> Path:
        """The database, if no other is set."""
        return self.data / "app.sqlite3"

    @property
    def logs(self) -> Path:
        """Logs in files."""
        return self.path / "logs"

    @property
    def error_log(self) -> Path:
        """The errors of all processes, a JSON object a line."""
        return self.logs / "errors.jsonl"

    @property
    def work(self) -> Path:
        """What may vanish at any time."""
        return self.path / "work"

    @property
    def backups(self) -> Path:
        """Backups, if the settings name no other folder."""
        return self.path / "backups"

    def make(self, user: str | None = None, group: str | None = None) -> list[str]:
        """Make what is missing, with a secret, and mend modes and owners; returns a line for each change.

        Args:
            user: the service's user, who will own what the service writes; owners stay as they are, if not given.
            group: the group that may read what the service reads; it stays as it is, if not given.

        Raises:
            ConfigError: the user or group is unknown, or something else stands in the place of a folder.
        """
        uid, gid = _numbers(user, group)
        lines: list[str] = []
        try:
            for place, owner in self._folders(uid):
                with suppress(FileExistsError):
                    place.mkdir(MODE, parents=place == self.path)
                    lines.append(f"{place}: made")
                lines += _settle(place, os.O_DIRECTORY, MODE, owner, gid, mend=True)
            with open(self.env_file, "a+", encoding="utf-8", opener=_without_links) as file:
                file.seek(0)
                if not SECRET.search(file.read()):
                    file.write(f"\nSECRET_KEY={secrets.token_urlsafe(32)}\n")
                    lines.append(f"{self.env_file}: a new secret was written")
            lines += _settle(self.env_file, 0, 0o640 if group else 0o600, -1, gid, mend=True)
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be made or mended: {error.strerror}") from None
        return lines

    def check(self, user: str | None = None, group: str | None = None) -> list[str]:
        """A line for everything that `make` would change, and for settings that others could change."""
        uid, gid = _numbers(user, group)
        lines: list[str] = []
        for place, flags, mode, owner in [
            *((folder, os.O_DIRECTORY, MODE, owner) for folder, owner in self._folders(uid)),
            (self.env_file, 0, 0o640, -1),
        ]:
            try:
                lines += _settle(place, flags, mode, owner, gid, mend=False)
            except OSError as error:
                lines.append(f"{place}: {error.strerror}")
        return [*(f"{line}; run `{MAKE}`" for line in lines), *self.exposed()]

    def exposed(self) -> list[str]:
        """A line for each place where others could change the code that runs, or read the secret."""
        places = [
            (place, stat.S_IWOTH, "o-w") for place in (self.path, self.data, self.config, *self.config.rglob("*"))
        ]
        return [
            f"{place}: others may reach it; run `chmod {mend} {shlex.quote(str(place))}`"
            for place, others, mend in [*places, (self.env_file, stat.S_IRWXO, "o=")]
            if place.exists() and place.stat().st_mode & others
        ]

    def _folders(self, uid: int) -> Iterator[tuple[Path, int]]:
        """The folders with their owners: what the service only reads is root's."""
        for name, part in {"": Part(written=False), **PARTS}.items():
            yield self.path / name, uid if part.written or uid == -1 else os.geteuid()


def _settle(place: Path, flags: int, mode: int, uid: int, gid: int, *, mend: bool) -> Iterator[str]:
    """Compare, and mend, through a descriptor that follows no link: the service could have put one in its place."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | flags)
    try:
        status = os.fstat(descriptor)
        too_open = stat.S_IMODE(status.st_mode) & ~mode
        wrong = [f"mode {stat.S_IMODE(status.st_mode):o}, expected {mode:o}"] if too_open else []
        if uid not in (-1, status.st_uid):
            wrong.append(f"owner {status.st_uid}, expected {uid}")
        if gid not in (-1, status.st_gid):
            wrong.append(f"group {status.st_gid}, expected {gid}")
        if mend and wrong:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    if wrong:
        yield f"{place}: {', '.join(wrong)}{' (mended)' if mend else ''}"


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _numbers(user: str | None, group: str | None) -> tuple[int, int]:
    try:
        return pwd.getpwnam(user).pw_uid if user else -1, grp.getgrnam(group).gr_gid if group else -1
    except KeyError as error:
        raise ConfigError(f"{error.args[0]}; create it, or name another one") from None
