"""The app folder: the one place that holds an installation's config, data and logs."""

import grp
import os
import pwd
import re
import secrets
import shlex
import stat
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
        return self.path / ".env"

    @property
    def config(self) -> Path:
        return self.path / "config"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def database(self) -> Path:
        return self.data / "app.sqlite3"

    @property
    def mails(self) -> Path:
        return self.path / "work/mail"

    @property
    def error_log(self) -> Path:
        return self.path / "logs/errors.jsonl"

    def make(self, user: str | None = None, group: str | None = None) -> None:
        """Make what is missing, with a secret, and set modes; owners as well, if they are given.

        The user owns what the service writes, and root the rest; the group may read all of it. Raises `ConfigError`.
        """
        try:
            uid, gid = pwd.getpwnam(user).pw_uid if user else -1, grp.getgrnam(group).gr_gid if group else -1
            others = os.geteuid() if user else -1
            for name, part in {"": Part(written=False), **PARTS}.items():
                with suppress(FileExistsError):
                    (self.path / name).mkdir(parents=not name)
                owner = uid if part.written else others
                os.close(_settle(self.path / name, os.O_DIRECTORY, 0o750, owner, gid))
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            with os.fdopen(_settle(self.env_file, flags, 0o640, others, gid), "r+", encoding="utf-8") as file:
                if not SECRET.search(file.read()):
                    file.write(f"\nSECRET_KEY={secrets.token_urlsafe(32)}\n")
        except KeyError as error:
            raise ConfigError(f"{error.args[0]}; create it, or name another one") from None
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be made or mended: {error.strerror}") from None

    def check(self) -> list[str]:
        """A line for everything that is missing or a link, and for settings that others could change."""
        places = [self.path / name for name in ("", ".env", *PARTS)]
        wrong = [place for place in places if place.is_symlink() or not place.exists()]
        return [f"{place}: is missing, or a link; run `{MAKE}`" for place in wrong] + self.exposed()

    def exposed(self) -> list[str]:
        """A line for each place where others could change the code that runs, or read the secret."""
        lines: list[str] = []
        for place in (self.path, self.data, self.config, *self.config.rglob("*"), self.env_file):
            others, mend = (stat.S_IRWXO, "o=") if place == self.env_file else (stat.S_IWOTH, "o-w")
            if place.exists() and place.stat().st_mode & others:
                lines.append(f"{place}: others may reach it; run `chmod {mend} {shlex.quote(str(place))}`")
        return lines


def _settle(place: Path, flags: int, mode: int, uid: int, gid: int) -> int:
    """Open a place, but no link that the service could have put there, and give it its mode and owners."""
    descriptor = os.open(place, flags | os.O_NOFOLLOW, 0o600)
    os.fchown(descriptor, uid, gid)
    # What is narrower stays so, unless it is for a group.
    os.fchmod(descriptor, mode if gid != -1 else mode & os.fstat(descriptor).st_mode)
    return descriptor
