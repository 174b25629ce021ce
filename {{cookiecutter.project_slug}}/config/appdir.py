"""The app folder: the one place that holds an installation's config, data and logs."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

FOLDERS = (
    "config",
    "data",
    "data/batches",
    "data/exports",
    "data/templates",
    "data/upgrades",
    "data/uploads",
    "static",
    "media",
    "logs",
    "sessions",
    "sessions/data",
    "sessions/lock",
    "work",
    "cache",
    "backups",
)


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

    def make(self) -> list[str]:
        """Make what is missing and touch nothing else; returns a line for each thing made.

        Folders are 0750 and `.env` is 0640: the group is for the web server. The secret is made once, and added to
        an `.env` that has none.

        Raises:
            AppDirError: a file stands where a folder belongs, or the folder cannot be written.
        """
        done = []
        try:
            for folder in (self.path, *(self.path / name for name in FOLDERS)):
                if not folder.is_dir():
                    folder.mkdir(parents=True)
                    folder.chmod(0o750)
                    done.append(f"made {folder}")
            if not dotenv_values(self.env_file, interpolate=False).get("SECRET_KEY"):
                self._write_secret()
                done.append(f"wrote a new SECRET_KEY into {self.env_file}")
        except FileExistsError as error:
            raise AppDirError(f"{error.filename}: expected a folder, found a file; move it away") from None
        except OSError as error:
            raise AppDirError(f"{error.filename}: cannot be made: {error.strerror}") from None
        return done

    def _write_secret(self) -> None:
        descriptor = os.open(self.env_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            if file.tell():
                file.write("\n")  # The last line may lack its end.
            else:
                os.fchmod(descriptor, 0o640)
            file.write(f"SECRET_KEY={secrets.token_urlsafe(32)}\n")


class AppDirError(Exception):
    """The app folder cannot be made; the message names the path."""
