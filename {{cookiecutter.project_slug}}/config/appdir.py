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
        return self.path / "logs"

    @property
    def error_log(self) -> Path:
        """The errors of all processes, a JSON object a line."""
        return self.logs / "errors.jsonl"

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
        lines: list[str] = []
        try:
            for place, mode, uid, gid, reason in self._wrong(user, group):
                if stat.S_ISDIR(mode):
                    with suppress(FileExistsError):
                        place.mkdir(0o750, parents=place == self.path)
                # No link is followed: the service could have put one in its place.
                kind = os.O_DIRECTORY if stat.S_ISDIR(mode) else os.O_CREAT
                descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | kind, 0o600)
                try:
                    os.fchown(descriptor, uid, gid)
                    os.fchmod(descriptor, stat.S_IMODE(mode if group else mode & os.fstat(descriptor).st_mode))
                finally:
                    os.close(descriptor)
                lines.append(f"{place}: {reason} (mended)")
            descriptor = os.open(self.env_file, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
                if not SECRET.search(file.read()):
                    file.write(f"\nSECRET_KEY={secrets.token_urlsafe(32)}\n")
                    lines.append(f"{self.env_file}: a new secret was written")
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be made or mended: {error.strerror}") from None
        return lines

    def check(self, user: str | None = None, group: str | None = None) -> list[str]:
        """A line for everything that `make` would mend, and for settings that others could change."""
        lines = [f"{place}: {reason}; run `{MAKE}`" for place, *_, reason in self._wrong(user, group)]
        return lines + self.exposed()

    def exposed(self) -> list[str]:
        """A line for each place where others could change the code that runs, or read the secret."""
        lines: list[str] = []
        for place in (self.path, self.data, self.config, *self.config.rglob("*"), self.env_file):
            others, mend = (stat.S_IRWXO, "o=") if place == self.env_file else (stat.S_IWOTH, "o-w")
            if place.exists() and place.stat().st_mode & others:
                lines.append(f"{place}: others may reach it; run `chmod {mend} {shlex.quote(str(place))}`")
        return lines

    def _wrong(self, user: str | None, group: str | None) -> Iterator[tuple[Path, int, int, int, str]]:
        """What is missing or not as it should be: place, mode, owner and group (-1: any), and a reason for people."""
        try:
            uid, gid = pwd.getpwnam(user).pw_uid if user else -1, grp.getgrnam(group).gr_gid if group else -1
        except KeyError as error:
            raise ConfigError(f"{error.args[0]}; create it, or name another one") from None
        for name, part in {"": Part(written=False), **PARTS, ".env": Part(written=False)}.items():
            place, mode = self.path / name, stat.S_IFREG | 0o640 if name == ".env" else stat.S_IFDIR | 0o750
            # What the service only reads is root's.
            owner = uid if part.written or uid == -1 else os.geteuid()
            try:
                status = place.lstat()
            except OSError:
                yield place, mode, owner, gid, "is missing"
                continue
            # Without a group, a mode may be narrower.
            allowed = mode if group else mode & (status.st_mode | ~0o777)
            found = status.st_mode, status.st_uid, status.st_gid
            wanted = allowed, owner if user else status.st_uid, gid if group else status.st_gid
            if found != wanted:
                yield place, mode, owner, gid, f"found {_shown(*found)}, expected {_shown(*wanted)}"


def _shown(mode: int, uid: int, gid: int) -> str:
    return f"{stat.filemode(mode)} {uid}:{gid}"
