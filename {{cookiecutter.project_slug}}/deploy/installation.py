"""What an installation on this host is, and how its host is asked and changed."""

import configparser
import fcntl
import getpass
import grp
import http.client
import importlib.util
import json
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
TEMPLATES = PROJECT / "deploy"
# Exit codes.
FINDINGS, BAD_INPUT, PREFLIGHT, MIGRATION, ROLLED_BACK, DOWN, LOCKED, INTERRUPTED = 1, 2, 3, 4, 5, 6, 75, 130
# What the service writes in the app folder; everything else in it is the administrator's.
WRITTEN = ("data", "media", "logs", "sessions", "work", "cache", "backups")
# As which Debian's nginx runs.
WEB_SERVER = "www-data"
# Seconds that one answer may take.
ANSWER_TIMEOUT = 3
# Bytes.
LONGEST_ANSWER = 100_000
HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Failure(Exception):
    """What went wrong, in a line, and the exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Site:
    """One installation: all names and paths that units, web server and commands share.

    The fields are the keys of `config/deploy.ini`, beside the service's slug.
    """

    slug: str
    host: str = ""
    user: str = WEB_SERVER
    group: str = WEB_SERVER
    certificate: str = ""
    certificate_key: str = ""
    upload_limit: str = "6m"
    keep: int = 5
    root: Path = field(default=Path(), compare=False)

    @property
    def releases(self) -> Path:
        """All releases that are kept."""
        return self.root / "releases"

    @property
    def shared(self) -> Path:
        """The app folder."""
        return self.root / "shared"

    @property
    def run(self) -> Path:
        """Where sockets are."""
        return self.root / "run"

    @property
    def link(self) -> Path:
        """Leads to the live release."""
        return self.root / "app"

    @property
    def socket(self) -> Path:
        """Where the service answers."""
        return self.run / "gunicorn.sock"

    @property
    def preflight_socket(self) -> Path:
        """Where a release answers that is not live yet."""
        return self.run / "preflight.sock"

    @property
    def overlay(self) -> Path:
        """This installation's own values for `config/deploy.ini`."""
        return self.shared / "config" / "deploy.ini"

    @property
    def web(self) -> str:
        """The unit that serves."""
        return f"{self.slug}.service"

    @property
    def listener(self) -> str:
        """The unit that holds the socket."""
        return f"{self.slug}.socket"

    @property
    def background(self) -> tuple[str, str]:
        """The units that do the other work."""
        return f"{self.slug}-queue.service", f"{self.slug}-scheduler.service"

    @property
    def units(self) -> tuple[str, ...]:
        """All that run for good."""
        return self.listener, self.web, *self.background

    @property
    def instances(self) -> tuple[str, str]:
        """Patterns of the units that run while releases are switched."""
        return self.bridge("*"), f"{self.slug}-preflight@*"

    def bridge(self, release: str) -> str:
        """The unit that serves a release beside the one that is restarted."""
        return f"{self.slug}@{release}.service"

    def preflight(self, release: str) -> str:
        """The unit that serves a release on a private socket, which is systemd's as well."""
        return f"{self.slug}-preflight@{release}.service"

    def current(self) -> str | None:
        """The live release, by the link."""
        return os.readlink(self.link).rpartition("/")[2] if self.link.is_symlink() else None

    def names(self) -> list[str]:
        """All releases, the oldest first."""
        names = [path.name for path in self.releases.iterdir()] if self.releases.is_dir() else []
        return sorted(name for name in names if re.fullmatch(r"\d{14}", name))

    def is_good(self, release: str) -> bool:
        """Whether a release was live, and nothing speaks against it."""
        folder = self.releases / release
        return (folder / "LIVE").exists() and not (folder / "BAD").exists()


class Steps:
    """What a command does, one after another: each is printed with its time, and kept for the log."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Around one step."""
        say(f"{name} ... ", end="")
        start = time.monotonic()
        ended = "failed after"
        try:
            yield
            ended = ""
        finally:
            self.seconds[name] = round(time.monotonic() - start, 2)
            say(f"{ended} {self.seconds[name]:.1f} s".lstrip())


def load_site(project: Path = PROJECT, srv: Path = Path("/srv")) -> Site:
    """The installation of this project on this host: `config/deploy.ini`, and over it the app folder's.

    Raises:
        Failure: a file cannot be read, or a value cannot be used.
    """
    slug = tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"]
    site = Site(slug, root=srv / slug)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([project / "config" / "deploy.ini", site.overlay], encoding="utf-8")
        values: dict[str, Any] = dict(parser["deploy"])
        if (keep := int(values["keep"])) < 1:
            raise ValueError(f"keep: found {keep}, expected a number from 1")
        return Site(slug, root=site.root, **(values | {"keep": keep}))
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError, TypeError, ValueError) as error:
        raise Failure(BAD_INPUT, f"{site.overlay}: cannot be used: {' '.join(str(error).split())}") from None


def problems_of(site: Site) -> Iterator[str]:
    """A line for each reason why the service cannot be installed here."""
    if not HOST.fullmatch(site.host):
        yield f"--host: found {site.host!r}, expected a name like blog.example.com"
    user = None
    try:
        user = pwd.getpwnam(site.user)
    except KeyError:
        mend = f"`useradd --system --user-group {site.user}`"
        yield f"--user: found {site.user!r}, expected one of this host; make it with {mend}"
    try:
        grp.getgrnam(site.group)
    except KeyError:
        yield f"--group: found {site.group!r}, expected one of this host; make it with `groupadd --system {site.group}`"
    if user and user.pw_uid == 0:
        yield "--user: found root, expected a user without rights"
    for data in site.root.parent.glob("*/shared/data"):
        if user and data.parent != site.shared and data.stat().st_uid == user.pw_uid:
            yield f"--user: found {site.user!r}, as whom {data.parent.parent} runs already; expected one of its own"
    if bool(site.certificate) != bool(site.certificate_key):
        yield "--certificate and --certificate-key: found one of them, expected both or none"
    for option, path in (("--certificate", site.certificate), ("--certificate-key", site.certificate_key)):
        if path and not Path(path).is_file():
            yield f"{option}: found {path!r}, expected a PEM file"
    if not re.fullmatch(r"[1-9]\d{0,5}[kmg]?", site.upload_limit):
        yield f"{site.overlay}: upload_limit: found {site.upload_limit!r}, expected a size like 6m"
    for place in () if site.releases.is_dir() else render(site):
        taken = [found for found in (place, Path("/usr/lib/systemd/system", place.name)) if found.exists()]
        if taken and place.name != "default-closed.conf":
            yield f"{taken[0]}: is there already, and not of this service; move it away, or choose another slug"
    if not Path("/run/systemd/system").is_dir():
        yield "systemd: does not run here; the service needs it"
    if not shutil.which("nginx"):
        yield "nginx: is not installed; run `apt install nginx`"
    if not importlib.util.find_spec("ensurepip"):
        yield "python3: cannot make environments; run `apt install python3-venv`"


def render(site: Site) -> dict[Path, str]:
    """The text of every file that belongs outside of the service's own folder, by its path."""
    etc, units = Path("/etc"), Path("/etc/systemd/system")
    values = {name: str(getattr(site, name)) for name in site.__dataclass_fields__}
    values["written"] = " ".join(f"-{site.shared / name}" for name in WRITTEN)
    values["hardening"] = (TEMPLATES / "systemd/hardening.conf").read_text().strip()
    values["locations"] = (TEMPLATES / "nginx/locations.conf").read_text().strip()
    values["maps"] = (TEMPLATES / "nginx/maps.conf").read_text().strip()
    files = {
        units / site.listener: "systemd/web.socket",
        units / site.web: "systemd/web.service",
        units / site.bridge(""): "systemd/bridge.service",
        units / f"{site.slug}-preflight@.socket": "systemd/preflight.socket",
        units / site.preflight(""): "systemd/preflight.service",
        units / site.background[0]: "systemd/queue.service",
        units / site.background[1]: "systemd/scheduler.service",
        etc / "tmpfiles.d" / f"{site.slug}.conf": "tmpfiles.conf" if site.group == WEB_SERVER else "tmpfiles-acl.conf",
        etc / "nginx/conf.d" / f"{site.slug}.conf": "nginx/https.conf" if site.certificate else "nginx/http.conf",
        etc / "nginx/conf.d/default-closed.conf": "nginx/default.conf",
        Path("/usr/local/bin") / site.slug: "command",
    }
    return {path: fill_in((TEMPLATES / name).read_text(), values) for path, name in files.items()}


def fill_in(text: str, values: dict[str, str]) -> str:
    """Put the values in the places of their names, which stand in angle brackets. A value may hold such names."""
    for _ in range(2):
        text = re.sub(r"<([a-z_]+)>", lambda name: values[name[1]], text)
    return text


def require_installed(site: Site) -> None:
    """Refuse to work where `init` was never run.

    Raises:
        Failure: with the command that mends it.
    """
    require_root()
    if not site.releases.is_dir() or not site.host:
        raise Failure(BAD_INPUT, f"{site.root}: is not set up yet; run `release.py init --host NAME`")


def require_root() -> None:
    """Raise a `Failure` if it is not root who asks."""
    if os.geteuid() != 0:
        raise Failure(
            BAD_INPUT, "this works on the whole host, and has to be run as root: sudo python3 deploy/release.py"
        )


@contextmanager
def locked(site: Site, command: str) -> Iterator[None]:
    """One command at a time. The kernel gives the lock back, however this process ends.

    Raises:
        Failure: another one is at work.
    """
    with (site.root / ".deploy.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Failure(LOCKED, f"{file.name}: locked by {file.read().strip()}; wait for it") from None
        file.truncate(0)
        file.write(f"{command}, process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def logged(site: Site, command: str, steps: Steps, **known: object) -> Iterator[dict[str, object]]:
    """Add a line to `deploy.jsonl` of the app folder about a command, however it ends, and what it has learnt."""
    start = datetime.now(UTC)
    line: dict[str, object] = {"at": start.isoformat(timespec="seconds"), "by": _who(), "command": command, **known}
    try:
        yield line
    except BaseException as error:
        line |= {"ok": False, "error": str(error) or type(error).__name__}
        raise
    else:
        line["ok"] = True
    finally:
        _append(site, json.dumps(line | {"seconds": steps.seconds, "live": site.current()}))


def _who() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _append(site: Site, line: str) -> None:
    """Write into a folder of the service, who could have put a link or a pipe there to make root write elsewhere."""
    try:
        folder = os.open(site.shared / "logs", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return  # The first deploy has failed before there was an app folder.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with os.fdopen(os.open("deploy.jsonl", flags, 0o640, dir_fd=folder), "a") as file:
            require_own(file.fileno())
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        say(f"{site.shared}/logs/deploy.jsonl: not written: {error.strerror or error}", error=True)
    finally:
        os.close(folder)


def last_logged(site: Site, *commands: str) -> dict[str, Any] | None:
    """The last line of `deploy.jsonl` about one of these commands; about any, if none is named."""
    path = site.shared / "logs/deploy.jsonl"
    try:
        # The folder is the service's, who could have put something else there.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), errors="replace") as file:
            require_own(file.fileno())
            lines = [json.loads(line) for line in file if line.startswith("{") and line.endswith("}\n")]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Failure(FINDINGS, f"{path}: cannot be read: {error}") from None
    return next((line for line in reversed(lines) if not commands or line.get("command") in commands), None)


def require_own(descriptor: int) -> None:
    """Raise an `OSError` unless it is a file that only we can have made."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        raise OSError("it is not a file of root's")


def static_files(site: Site, release: str) -> list[str]:
    """The hashed names of a release's static files, for nginx; without any, the service sends them."""
    names = site.releases / release / "static.json"
    return sorted(json.loads(names.read_text()).values()) if names.exists() else []


def running(site: Site, unit: str) -> str | None:
    """The release in which a unit's main process was started; None if it runs in none."""
    pid = run("systemctl", "show", "--property=MainPID", "--value", unit).stdout.strip()
    try:
        folder = Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None
    return folder.name if folder.parent == site.releases else None


def ask(site: Site, address: Path, path: str) -> tuple[int, bytes]:
    """What the service answers on a socket: status and body."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT)
        connection.connect(str(address))
        client = http.client.HTTPConnection(site.host or "localhost")
        client.sock = connection
        # Of the whole answer, also of one that comes byte by byte.
        patience = threading.Timer(ANSWER_TIMEOUT, connection.shutdown, [socket.SHUT_RDWR])
        patience.start()
        try:
            client.request("GET", path, headers={"X-Forwarded-Proto": "https"})
            response = client.getresponse()
            return response.status, response.read(LONGEST_ANSWER)
        finally:
            patience.cancel()


def environment(site: Site) -> dict[str, str]:
    """For the service's own commands."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "APP_ENV": "production",
        "APP_DIR": str(site.shared),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def require(code: int, what: str, *command: str | Path, **options: Any) -> str:
    """The output of a program that has to succeed.

    Raises:
        Failure: it did not; with the last line that it printed.
    """
    done = run(*command, **options)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        # nginx tells first what is wrong, others last.
        told = next((line for line in lines if "[emerg]" in line), lines[-1])
        raise Failure(code, f"{what}: {told.strip()}")
    return done.stdout


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program without a terminal, and keep what it prints."""
    options |= {"stdin": subprocess.DEVNULL, "capture_output": True, "start_new_session": True}
    return subprocess.run([str(part) for part in command], text=True, errors="replace", check=False, **options)


def read(path: Path) -> str | None:
    """The text of a file; None if there is none."""
    return path.read_text() if path.is_file() else None


def write(path: Path, text: str) -> None:
    """Write a file of root's, at once; a script may be run."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o755 if text.startswith("#!") else 0o644)
    new.replace(path)


def say(text: object, *, end: str = "\n", error: bool = False) -> None:
    """Print, without what commands a terminal. Perhaps nobody is there to read it; the work goes on nevertheless."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(text))
    with suppress(OSError):
        print(shown, end=end, flush=True, file=sys.stderr if error else sys.stdout)
