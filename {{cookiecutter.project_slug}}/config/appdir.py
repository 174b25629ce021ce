"""The app folder: the one place that holds an installation's config, data and logs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from config.sources import ConfigError, Leaf, read_folder

if TYPE_CHECKING:
    from config.appdir_changes import Change, Finding


ROOT = Path(__file__).resolve().parent.parent


class Part(NamedTuple):
    """A folder in the app folder.

    The service writes the ones that are `written`; the others are the administrator's, and it only reads them. What is
    `disposable` may be deleted at any time.
    """

    purpose: str
    written: bool = True
    in_backups: bool = True
    disposable: bool = False
    mode: int = 0o750
    folders: tuple[str, ...] = ()


PARTS = {
    "config": Part("settings of this installation, which go before those of the project", written=False),
    "data": Part("the SQLite database, and files", folders=("batches", "exports", "templates", "upgrades", "uploads")),
    "static": Part("built assets, for the web server", written=False, in_backups=False),
    "media": Part("users' files, for the web server"),
    "logs": Part("logs in files", in_backups=False),
    "sessions": Part("web sessions, if they are kept on disk", folders=("data", "lock")),
    "work": Part(
        "what the processes of the service tell each other; what is in it may vanish", in_backups=False, disposable=True
    ),
    "cache": Part("what can be made again", in_backups=False, disposable=True),
    "backups": Part("backups, with all secrets in them; copy them to another machine", in_backups=False, mode=0o700),
}
# The same with the folders in them.
FOLDERS = {
    place: part for name, part in PARTS.items() for place in (name, *(f"{name}/{inner}" for inner in part.folders))
}
FILES = {
    ".env": "secrets and environment variables",
    "README.md": "this list",
    "appdir.json": "whose folder this is",
}
# Of what the folder looks like. One that newer code has made may hold what this code would break.
FORMAT = 1
MAKE = "python main.py appdir make"


def application(root: Path = ROOT) -> str:
    """The slug in the project's `config/app.*`, by which an app folder knows whose it is.

    No overlay changes it: else an installation's settings would make its own folder somebody else's.

    Raises:
        ConfigError: a file in `config/` cannot be read.
    """
    slug = read_folder(root / "config", root).get("app", {}).get("slug")
    return str(slug.value) if isinstance(slug, Leaf) else root.name


@dataclass(frozen=True)
class AppDir:
    """Paths inside one app folder. Nothing else in the service builds them."""

    path: Path

    @property
    def env_file(self) -> Path:
        """Secrets and environment variables of this installation."""
        return self.path / ".env"

    @property
    def marker(self) -> Path:
        """Tells which application the folder belongs to."""
        return self.path / "appdir.json"

    @property
    def config(self) -> Path:
        """Overlays of the project's `config/`."""
        return self.path / "config"

    @property
    def data(self) -> Path:
        """Files and the SQLite database."""
        return self.path / "data"

    @property
    def database(self) -> Path:
        """The database when no other is set."""
        return self.data / "app.sqlite3"

    @property
    def logs(self) -> Path:
        """Logs in files."""
        return self.path / "logs"

    @property
    def error_log(self) -> Path:
        """The latest errors of all processes, a JSON object a line."""
        return self.logs / "errors.jsonl"

    @property
    def audit_log(self) -> Path:
        """What administrators have done, a JSON object a line."""
        return self.logs / "audit.jsonl"

    @property
    def work(self) -> Path:
        """What may vanish at any time."""
        return self.path / "work"

    @property
    def metrics(self) -> Path:
        """What processes count, in files that one of them can add up."""
        return self.work / "metrics"

    @property
    def backup_lock(self) -> Path:
        """The file that is locked while a backup is made."""
        return self.work / "backup.lock"

    @property
    def backups(self) -> Path:
        """Backups, if the settings name no other folder."""
        return self.path / "backups"

    def make(self, user: str | None = None, group: str | None = None, *, dry_run: bool = False) -> "list[Change]":
        """Make what is missing, and mend modes and owners; returns what was changed.

        Every link in the place of a folder or a file of ours is refused: a backup would leave out what is behind it,
        and owners and modes would be changed outside of the folder.

        Args:
            user: who the service runs as, and shall own what it writes; as it is, if not given.
            group: may read what the service needs; as it is, or the user's own, if not given.
            dry_run: change nothing, and return what would be changed.

        Raises:
            AppDirError: with a line for each reason why that cannot be done. Nothing was changed, unless the disk
                itself has failed.
        """
        from config import appdir_changes

        return appdir_changes.make(self, user, group, dry_run=dry_run)

    def check(self, user: str | None = None, group: str | None = None, *, mend: str = MAKE) -> "list[Finding]":
        """What `make` would change, and files in `config/` that others may write.

        Args:
            user: as for `make`.
            group: as for `make`.
            mend: the command that calls `make` in the same way.

        Raises:
            AppDirError: as `make`.
        """
        from config import appdir_changes

        return appdir_changes.check(self, user, group, mend=mend)

    def stranger(self, slug: str) -> str | None:
        """Why the folder cannot be used by the application of that slug, in a line; None if it can be."""
        expected = {"application": slug, "format": FORMAT}
        mend = f"expected {json.dumps(expected)}; write that, or use another folder"
        try:
            if self.marker.is_symlink():
                return f"{self.marker}: found a link, {mend}"
            found = json.loads(self.marker.read_bytes())
            owner, version = found["application"], int(found["format"])
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{self.marker}: cannot be read: {error.strerror}"
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"{self.marker}: is broken, {mend}"
        if owner != slug:
            return f"{self.path}: is the app folder of {owner!r}, not of {slug!r}; use another folder"
        if version > FORMAT:
            return (
                f"{self.path}: was made by a newer version (format {version}, this one knows {FORMAT}); "
                "use that version, or another folder"
            )
        return None


class AppDirError(ConfigError):
    """The app folder cannot be made; each problem names a path or an option."""
