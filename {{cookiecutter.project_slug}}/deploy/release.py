#!/usr/bin/env python3
"""Installs the service on a host, switches releases, and goes back to one that was live before.

Needs nothing but the host's own Python, 3.11 or newer, and runs as root: `python3 deploy/release.py --help`.
docs/production.md tells the whole story.

A release is a folder in /srv/<slug>/releases, named by the time in UTC at which it came. The link /srv/<slug>/app leads
to the one that is live. Two files in a release remember what became of it: LIVE, once it has served, and BAD, why it is
not to be gone back to.
"""

import argparse
import configparser
import fcntl
import filecmp
import getpass
import grp
import hashlib
import http.client
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
TEMPLATES = PROJECT / "deploy"
# Exit codes.
FINDINGS, BAD_INPUT, PREFLIGHT, MIGRATION, ROLLED_BACK, DOWN, LOCKED, INTERRUPTED = 1, 2, 3, 4, 5, 6, 75, 130
# What the service writes in the app folder; everything else in it is the administrator's.
WRITTEN = ("data", "media", "logs", "sessions", "work", "cache", "backups")
# As which Debian's nginx runs.
WEB_SERVER = "www-data"
# What a release's environment takes beside its code, in bytes.
ROOM = 300_000_000
# Seconds that a new process has for its first answer, and that one answer may take.
PATIENCE = 15
ANSWER_TIMEOUT = 3
# Bytes.
LONGEST_ANSWER = 100_000
RELEASE_NAME = "%Y%m%d%H%M%S"
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OPTIONS = {
    "host": "the name that nginx answers to",
    "user": "who the service runs as (default: www-data)",
    "group": "who may read the app folder (default: that user's own)",
    "certificate": "PEM file for TLS; without one nginx speaks HTTP, for a proxy in front that speaks TLS",
    "certificate_key": "its key",
}
# Where Debian's own page of nginx is enabled.
STOCK_PAGE = Path("/etc/nginx/sites-enabled/default")
HOST = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
HASHED = re.compile(r".+\.[0-9a-f]{8}(\.[^./]+)?")


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


def render(site: Site, templates: Path = TEMPLATES) -> dict[Path, str]:
    """The text of every file that belongs outside of the service's own folder, by its path."""
    etc, units = Path("/etc"), Path("/etc/systemd/system")
    values = {name: str(getattr(site, name)) for name in site.__dataclass_fields__}
    values["written"] = " ".join(f"-{site.shared / name}" for name in WRITTEN)
    values["hardening"] = (templates / "systemd/hardening.conf").read_text().strip()
    values["locations"] = (templates / "nginx/locations.conf").read_text().strip()
    values["maps"] = (templates / "nginx/maps.conf").read_text().strip()
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
    return {path: fill_in((templates / name).read_text(), values) for path, name in files.items()}


def fill_in(text: str, values: dict[str, str]) -> str:
    """Put the values in the places of their names, which stand in angle brackets. A value may hold such names."""
    for _ in range(2):
        text = re.sub(r"<([a-z_]+)>", lambda name: values[name[1]], text)
    return text


def say(text: object, *, end: str = "\n", error: bool = False) -> None:
    """Print, without what commands a terminal. Perhaps nobody is there to read it; the work goes on nevertheless."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(text))
    with suppress(OSError):
        print(shown, end=end, flush=True, file=sys.stderr if error else sys.stdout)


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


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program without a terminal, and keep what it prints."""
    options |= {"stdin": subprocess.DEVNULL, "capture_output": True, "start_new_session": True}
    return subprocess.run([str(part) for part in command], text=True, errors="replace", check=False, **options)


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


def require_own(descriptor: int) -> None:
    """Raise an `OSError` unless it is a file that only we can have made."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        raise OSError("it is not a file of root's")


def read_artifact(artifact: Path, slug: str, target: Path | None = None) -> dict[str, Any]:
    """Check an artifact, file by file, against the manifest in it; returns that.

    Args:
        artifact: what `make release` made.
        slug: of the application that it has to be.
        target: a folder into which it is unpacked meanwhile.

    Raises:
        Failure: it is not whole, or not what it should be.
    """
    try:
        with tarfile.open(artifact, "r:gz") as archive:
            members = iter(archive)
            first = next(members, None)
            if first is None or first.name != "release.json" or not first.isfile():
                raise Failure(BAD_INPUT, f"{artifact}: found no release.json, expected what `make release` makes")
            content = archive.extractfile(first)
            text = content.read() if content else b""
            manifest: dict[str, Any] = json.loads(text)
            if manifest["application"] != slug:
                raise Failure(BAD_INPUT, f"{artifact}: is a release of {manifest['application']!r}, expected {slug!r}")
            expected = dict(manifest["files"])
            if target:
                _write(target, "release.json", text, 0o644)
            for member in members:
                path = PurePosixPath(member.name)
                known = expected.pop(member.name, None)
                if known is None or not member.isfile() or path.is_absolute() or ".." in path.parts:
                    raise Failure(BAD_INPUT, f"{artifact}: holds {member.name!r}, which its manifest does not know")
                if member.size > ROOM:
                    raise Failure(BAD_INPUT, f"{artifact}: {member.name!r} has {member.size} bytes, which is too much")
                content = archive.extractfile(member)
                text = content.read() if content else b""
                if hashlib.sha256(text).hexdigest() != known:
                    raise Failure(BAD_INPUT, f"{artifact}: {member.name!r} is not as its manifest says; copy it again")
                if target:
                    _write(target, member.name, text, 0o755 if member.mode & 0o100 else 0o644)
    except OSError as error:
        raise Failure(BAD_INPUT, f"{error.filename or artifact}: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(BAD_INPUT, f"{artifact}: is no whole release: {error}; copy it again") from None
    if expected:
        raise Failure(BAD_INPUT, f"{artifact}: lacks {min(expected)!r}; copy it again")
    return manifest


def _write(folder: Path, name: str, content: bytes, mode: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
    path.chmod(mode)


def point(site: Site, release: str | None) -> None:
    """Let the link lead to another release, at once (rename(2)) and for good; or remove it."""
    if release is None:
        site.link.unlink(missing_ok=True)
    else:
        new = site.root / ".app.new"
        new.unlink(missing_ok=True)
        new.symlink_to(f"releases/{release}")
        new.replace(site.link)
    folder = os.open(site.root, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def mark(site: Site, release: str, name: str, text: str = "") -> None:
    """Write LIVE or BAD into a release, for good."""
    with (site.releases / release / name).open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


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


def wait_until_ready(site: Site, address: Path, release: str, *, migrated: bool = True) -> bool:
    """Wait until a release says that it is ready; whether all its migrations are there as well.

    Answers of another release, which may share the socket, do not count; three bad ones in a row are enough.

    Raises:
        Failure: it is not ready, and why.
    """
    deadline = time.monotonic() + PATIENCE
    bad, found = 0, "no answer"
    while bad < 3 and time.monotonic() < deadline:
        try:
            status, body = ask(site, address, "/readyz")
        except (OSError, http.client.HTTPException) as error:
            found = f"no answer: {error}"
            time.sleep(0.1)
            continue
        try:
            answer: dict[str, Any] = json.loads(body)
            failed = {name: result for name, result in answer["checks"].items() if result != "ok"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            answer, failed = {}, {"status": status}
        if answer.get("release", release) != release:
            time.sleep(0.01)
            continue
        # Without its tables, more than the migrations may fail.
        if not failed or ("migrations" in failed and not migrated):
            return not failed
        bad += 1
        found = ", ".join(f"{name}: {result}" for name, result in failed.items())
    raise Failure(PREFLIGHT, f"/readyz: {found}")


def start(*units: str, verb: str = "start") -> None:
    """Start or restart units, all at once, and wait until they say that they are there.

    Raises:
        Failure: one does not; with the last line that it wrote.
    """
    since = f"@{int(time.time())}"
    run("systemctl", "reset-failed", *units)
    if run("systemctl", verb, *units).returncode:
        unit = next((unit for unit in units if run("systemctl", "is-active", unit).returncode), units[0])
        written = run("journalctl", "-q", "-o", "cat", "-u", unit, "--since", since, "_TRANSPORT=stdout").stdout.strip()
        last = written.splitlines()[-1].strip() if written else "it says nothing; see `systemctl status`"
        raise Failure(PREFLIGHT, f"{unit} does not start: {last}")


def stop_instances(site: Site) -> None:
    """End all bridges and preflights."""
    run("systemctl", "stop", *site.instances)
    run("systemctl", "reset-failed", *site.instances)


def bridge(site: Site, release: str, steps: Steps) -> None:
    """Let a release answer on the same socket while the unit that serves is restarted, so that no visitor waits."""
    with steps(f"bridge ({release})"):
        start(site.bridge(release))


def switch(site: Site, release: str, steps: Steps) -> None:
    """Let a release take over. All units are restarted, so that nothing of the old one stays.

    Raises:
        Failure: something does not work; nothing was undone.
    """
    with steps(f"switch to {release}"):
        point(site, release)
    with steps("web"):
        start(site.listener)
        start(site.web, verb="restart")
        if (found := running(site, site.web)) != release:
            raise Failure(PREFLIGHT, f"{site.web} runs {found}")
        wait_until_ready(site, site.socket, release)
    with steps("queue and scheduler"):
        run("systemctl", "stop", "--no-block", site.bridge("*"))
        start(*site.background, verb="restart")


def activate(site: Site, release: str, steps: Steps) -> None:
    """Switch, and go back to what was live before if that does not work.

    Raises:
        Failure: the release is not live.
    """
    before = site.current()
    try:
        if before and running(site, site.web) == before:
            bridge(site, before, steps)
    except BaseException:
        stop_instances(site)
        raise
    try:
        switch(site, release, steps)
        mark(site, release, "LIVE")
    except BaseException as error:  # noqa: BLE001  (whatever it is, what was live has to come back)
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
        reason = str(error) or "interrupted"
        say(f"{release}: {reason}; going back", error=True)
        if before is None:
            go_dark(site)
            raise Failure(DOWN, f"{release} is not live: {reason}; there is no release before it") from None
        try:
            switch(site, before, steps)
        except Exception as second:  # noqa: BLE001  (as above)
            # If the bridge still answers, it goes on.
            raise Failure(DOWN, f"{release} is not live: {reason}; nor is {before}: {second}") from None
        stop_instances(site)
        raise Failure(ROLLED_BACK, f"{release} is not live: {reason}; {before} is live again") from None
    with steps("end of the bridge"):
        stop_instances(site)


def recover(site: Site, steps: Steps) -> None:
    """Undo what a command that was killed has left: go back to what was live last, and remove what never was."""
    current = site.current()
    good = [name for name in site.names() if site.is_good(name)]
    if current and not good:
        go_dark(site)
    elif current and current not in good:
        say(f"{current} never was live; going back to {good[-1]}")
        try:
            bridge(site, good[-1], steps)
            switch(site, good[-1], steps)
        except Failure as error:
            say(f"{good[-1]}: {error}", error=True)
            point(site, good[-1])
    stop_instances(site)
    for name in site.names():
        if not (site.releases / name / "LIVE").exists():
            discard(site.releases / name)


def discard(release: Path) -> None:
    """Delete a release. A program of a command that was killed may still be writing there, and does not notice."""
    gone = release.with_name(f".gone-{release.name}")
    release.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def go_dark(site: Site) -> None:
    """Stop everything, where no release is left to go back to."""
    run("systemctl", "stop", *site.units)
    point(site, None)


def environment(site: Site) -> dict[str, str]:
    """For the service's own commands."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "APP_ENV": "production",
        "APP_DIR": str(site.shared),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def command(site: Site, release: str, code: int, *words: str) -> str:
    """Run a command of a release's own `main.py`, which becomes the service's user where it should.

    Raises:
        Failure: with that exit code, if it fails.
    """
    folder = site.releases / release
    python = folder / ".venv/bin/python"
    return require(code, " ".join(words), python, "main.py", *words, cwd=folder, env=environment(site), umask=0o027)


def make_appdir(site: Site, release: str) -> None:
    """Make or mend the app folder, and let nginx into it where it has no right by its group."""
    words = ("--path", str(site.shared), "--user", site.user, "--group", site.group)
    command(site, release, BAD_INPUT, "appdir", "make", *words)
    require(BAD_INPUT, "systemd-tmpfiles", "systemd-tmpfiles", "--create", f"{site.slug}.conf")


def install(site: Site, release: str, wheels: Path | None) -> None:
    """Make the release's own environment, by uv where there is one, and compile everything.

    Raises:
        Failure: with the last line of what failed.
    """
    folder = site.releases / release
    python, venv = sys.executable, folder / ".venv"
    # Nothing is built here, as root, and nothing comes that is not pinned.
    flags = ["--only-binary", ":all:", "--no-deps", *(["--no-index"] if wheels else [])]
    environ = dict(os.environ, UV_LINK_MODE="copy", UV_COMPILE_BYTECODE="1", UV_PYTHON_DOWNLOADS="never")
    if wheels:
        environ |= {"UV_FIND_LINKS": str(wheels), "PIP_FIND_LINKS": str(wheels)}
    packages = folder / "requirements.txt"
    if uv := shutil.which("uv"):
        require(BAD_INPUT, "uv venv", uv, "venv", "-q", "--python", python, venv, env=environ)
        tool: list[str | Path] = [uv, "pip", "install", "-q", "--python", venv / "bin/python"]
    else:
        require(BAD_INPUT, "python3 -m venv", python, "-m", "venv", venv)
        tool = [venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    require(BAD_INPUT, "packages", *tool, *flags, "--require-hashes", "-r", packages, env=environ)
    (venv / ".lock").unlink(missing_ok=True)  # uv's; everybody may write it.
    require(BAD_INPUT, "compile", venv / "bin/python", "-m", "compileall", "-q", "-x", r"/\.venv/", folder)


def publish_static(site: Site, release: str) -> None:
    """Add the release's static files to those that the web server has. Their names hold their hash: none changes."""
    for name in static_files(site, release):
        source, target = site.releases / release / "app/static" / name, site.shared / "static" / name
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = target.with_name(f"{target.name}.new")
            shutil.copyfile(source, new)
            new.chmod(0o644)
            new.replace(target)


def static_files(site: Site, release: str) -> list[str]:
    """The hashed names of a release's static files."""
    names: dict[str, str] = json.loads((site.releases / release / "static.json").read_text())
    return sorted(names.values())


def preflight(site: Site, release: str, steps: Steps) -> None:
    """Start a release on a socket of its own, migrate the database if it asks for that, and look at its front page.

    Raises:
        Failure: it does not start, or is not ready; or the migration fails.
    """
    with steps("preflight"):
        start(site.preflight(release))
        migrated = wait_until_ready(site, site.preflight_socket, release, migrated=False)
        require_migrations(site, release)
    if not migrated:
        with steps("backup of the database"):
            command(site, release, MIGRATION, "backup", "database")
        with steps("migrations"):
            command(site, release, MIGRATION, "db", "upgrade")
            wait_until_ready(site, site.preflight_socket, release)
    with steps("front page"):
        try:
            status = ask(site, site.preflight_socket, "/")[0]
        except (OSError, http.client.HTTPException) as error:
            raise Failure(PREFLIGHT, f"/: no answer: {error}") from None
        if status >= 500:
            raise Failure(PREFLIGHT, f"/: status {status}; `journalctl -u {site.preflight(release)}` has the error")
    stop_instances(site)


def require_migrations(site: Site, release: str) -> None:
    """Refuse new migrations that would never run, because another branch's were run before them.

    A release without migrations of its own, a hotfix after a rollback, may know less than the database.

    Raises:
        Failure: naming one of them.
    """
    try:
        command(site, release, MIGRATION, "db", "current")
    except Failure as error:
        seen = {migration for name in site.names() if name != release for migration in migrations(site, name)}
        if unseen := sorted(migrations(site, release) - seen):
            raise Failure(
                MIGRATION, f"{unseen[0]}: cannot run: {error}; merge the migrations of what was live"
            ) from None


def migrations(site: Site, release: str) -> set[str]:
    """The names of a release's migrations."""
    return {path.name for path in (site.releases / release / "database/versions").glob("*.py")}


def prepare(site: Site, release: str, artifact: Path, wheels: Path | None, steps: Steps) -> None:
    """Everything up to the switch.

    Raises:
        Failure: and nothing has changed, but for the app folder's missing parts and migrations that were applied.
    """
    # Visitors come first.
    os.nice(10)
    folder = site.releases / release
    with steps("unpack"):
        folder.mkdir(mode=0o755)
        read_artifact(artifact, site.slug, folder)
        (folder / "RELEASE").write_text(release + "\n")
    with steps("packages"):
        install(site, release, wheels)
    with steps("app folder and settings"):
        make_appdir(site, release)
        command(site, release, BAD_INPUT, "config", "check")
    preflight(site, release, steps)
    with steps("static files"):
        publish_static(site, release)
        os.sync()


def deploy(site: Site, artifact: Path, *, offline: bool = False, dry_run: bool = False) -> None:
    """Bring an artifact live.

    Raises:
        Failure: it is not, and what was live before still is, unless the exit code is 6.
    """
    steps = Steps()
    wheels = artifact.resolve().parent / "wheels" if offline else None
    require_installed(site)
    with steps("artifact"):
        manifest = read_artifact(artifact, site.slug)
        if wheels and not wheels.is_dir():
            raise Failure(BAD_INPUT, f"{wheels}: is not there; make it with `make wheels`, and copy it here")
        if (free := shutil.disk_usage(site.root).free) < ROOM:
            raise Failure(BAD_INPUT, f"{site.root}: {free >> 20} MB are free, expected {ROOM >> 20}; make room")
    if dry_run:
        say(f"would replace {site.current()} by version {manifest['version']}, commit {manifest['commit'][:12]}")
        return
    with locked(site, "deploy"), logged(site, "deploy", steps, version=manifest["version"]) as line:
        recover(site, steps)
        release = line["release"] = next_name(site)
        try:
            prepare(site, release, artifact, wheels, steps)
        except BaseException:
            stop_instances(site)
            if (site.releases / release).exists():
                discard(site.releases / release)
            raise
        activate(site, release, steps)
        line["pruned"] = remove(site, prunable(site))
    say(f"live: {release}, version {manifest['version']}")


def next_name(site: Site) -> str:
    """The time, and never one before that of another release, whatever the clock says."""
    now = datetime.now(UTC)
    if names := site.names():
        now = max(now, datetime.strptime(names[-1], RELEASE_NAME).replace(tzinfo=UTC) + timedelta(seconds=1))
    return f"{now:{RELEASE_NAME}}"


def rollback(site: Site, release: str | None, *, dry_run: bool = False) -> None:
    """Go back to a release that was live, by default the newest one before the current one that is not bad.

    Raises:
        Failure: there is none, or it does not work any more; then what was live still is.
    """
    steps = Steps()
    require_installed(site)
    current = site.current() or ""
    older = [name for name in site.names() if name < current and site.is_good(name)]
    target = release or (older[-1] if older else None)
    if target is None:
        raise Failure(BAD_INPUT, f"found no release before {current or 'the first'} that was live; see `releases`")
    if target == current or not (site.releases / target / "LIVE").is_file() or target not in site.names():
        raise Failure(BAD_INPUT, f"RELEASE: found {target!r}, expected another one that was live; see `releases`")
    if dry_run:
        say(f"would replace {current} by {target}")
        return
    with locked(site, "rollback"), logged(site, "rollback", steps, release=target):
        recover(site, steps)
        activate(site, target, steps)
        (site.releases / target / "BAD").unlink(missing_ok=True)
        for name in site.names():
            if name > target and site.is_good(name):
                mark(site, name, "BAD", f"rolled back to {target}")
    say(f"live: {target}")


def prunable(site: Site, keep: int | None = None) -> list[str]:
    """The releases that are not needed any more: never the live one, nor the newest good ones."""
    good = [name for name in site.names() if site.is_good(name)]
    kept = {site.current(), *good[-(keep or site.keep) :]}
    return [name for name in site.names() if name not in kept]


def remove(site: Site, releases: list[str]) -> list[str]:
    """Delete releases, and the static files that only they have."""
    for name in releases:
        discard(site.releases / name)
    for path in site.releases.glob(".gone-*"):
        shutil.rmtree(path, ignore_errors=True)
    needed = {file for name in site.names() for file in static_files(site, name)}
    static = site.shared / "static"
    for path in static.rglob("*"):
        if path.is_file() and HASHED.fullmatch(path.name) and str(path.relative_to(static)) not in needed:
            path.unlink()
    return releases


def prune(site: Site, keep: int | None, *, dry_run: bool = False) -> None:
    """Remove what is not needed any more, and print it."""
    if dry_run:
        names = prunable(site, keep)
    else:
        with locked(site, "prune"), logged(site, "prune", Steps()) as line:
            names = line["pruned"] = remove(site, prunable(site, keep))
    for name in names:
        say(f"{'would remove' if dry_run else 'removed'} {name}")


def describe(site: Site) -> list[dict[str, Any]]:
    """All releases, the oldest first."""
    rows = []
    for name in site.names():
        folder = site.releases / name
        manifest, bad = json.loads(read(folder / "release.json") or "{}"), read(folder / "BAD")
        state = "live" if name == site.current() else bad or ("was live" if site.is_good(name) else "never live")
        rows.append(
            {"release": name, "version": manifest.get("version"), "commit": manifest.get("commit"), "state": state}
        )
    return rows


def status(site: Site) -> dict[str, Any]:
    """What is live, what runs, and how the last command ended."""
    return {
        "live": site.current(),
        "running": {unit: running(site, unit) for unit in site.units[1:]},
        "units": {unit: run("systemctl", "is-active", unit).stdout.strip() or "unknown" for unit in site.units},
        "last": last_logged(site),
    }


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


def init(site: Site, given: dict[str, str], *, dry_run: bool = False) -> None:
    """Write units, web server and folders as the settings say; what is right already stays as it is.

    Args:
        site: the installation, with the options in it.
        given: the options, for `config/deploy.ini` of the app folder.
        dry_run: say what would be written.

    Raises:
        Failure: something is missing, or nginx refuses; then nothing has changed.
    """
    if problems := list(problems_of(site)) or list(problems_of_change(site)):
        raise Failure(BAD_INPUT, "\n".join(problems))
    files = {path: text for path, text in render(site).items() if read(path) != text}
    if dry_run:
        for path in files:
            say(f"would write {path}")
        if STOCK_PAGE.is_symlink():
            say(f"would remove the link {STOCK_PAGE}")
        return
    require_root()
    site.releases.mkdir(mode=0o755, parents=True, exist_ok=True)
    steps, restart = Steps(), site.root / ".restart"
    with locked(site, "init"), logged(site, "init", steps):
        if site.current():
            recover(site, steps)
        with undone_on_error([*files, STOCK_PAGE, restart]):
            if files:
                restart.touch()
            for path, text in files.items():
                write(path, text)
                say(f"wrote {path}")
            # Debian's own page answers to every name; ours answers to none but the service's.
            if STOCK_PAGE.is_symlink():
                STOCK_PAGE.unlink()
                say(f"removed the link {STOCK_PAGE}")
            require(BAD_INPUT, "nginx -t", "nginx", "-t", "-q")
            if "conflicting server name" in (told := run("nginx", "-t", "-q").stderr):
                raise Failure(BAD_INPUT, f"--host: {told.strip().splitlines()[0]}; another site has that name")
        with steps("folders"):
            require(BAD_INPUT, "systemd-tmpfiles", "systemd-tmpfiles", "--create", f"{site.slug}.conf")
            if given:
                remember(site, given)
        with steps("units"):
            require(BAD_INPUT, "systemctl", "systemctl", "daemon-reload")
            require(BAD_INPUT, "systemctl", "systemctl", "enable", "-q", *site.units)
        with steps("nginx"):
            require(BAD_INPUT, "nginx", "systemctl", "enable", "-q", "nginx")
            require(BAD_INPUT, "nginx", "systemctl", "reload-or-restart", "nginx")
        # Also if an `init` before this one was killed.
        if restart.exists() and (live := site.current()):
            make_appdir(site, live)
            activate(site, live, steps)
        restart.unlink(missing_ok=True)
    say(f"ok: {site.root} for {site.host}" + ("" if site.current() else "; next: `release.py deploy ARTIFACT`"))


def problems_of_change(site: Site) -> Iterator[str]:
    """Why a service that is live cannot be given to another user just so: its files are somebody's."""
    data = site.shared / "data"
    wanted = pwd.getpwnam(site.user).pw_uid, grp.getgrnam(site.group).gr_gid
    if site.current() and data.is_dir() and ((found := data.stat()).st_uid, found.st_gid) != wanted:
        yield (
            f"--user: found {site.user}:{site.group}, but {data} belongs to {found.st_uid}:{found.st_gid}; "
            "docs/production.md tells how to give it to another one"
        )


@contextmanager
def undone_on_error(paths: list[Path]) -> Iterator[None]:
    """Put files and links back as they were if the block fails."""
    before = [(path, os.readlink(path) if path.is_symlink() else None, read(path)) for path in paths]
    try:
        yield
    except BaseException:
        for path, link, text in before:
            path.unlink(missing_ok=True)
            if link is not None:
                path.symlink_to(link)
            elif text is not None:
                write(path, text)
        raise


def read(path: Path) -> str | None:
    """The text of a file; None if there is none."""
    return path.read_text() if path.is_file() else None


def write(path: Path, text: str) -> None:
    """Write a file of root's, at once; a script may be run."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o755 if text.startswith("#!") else 0o644)
    new.replace(path)


def remember(site: Site, given: dict[str, str]) -> None:
    """Keep the options in `config/deploy.ini` of the app folder, where backups find them."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(site.overlay, encoding="utf-8")
    parser.read_dict({"deploy": given})
    site.overlay.parent.mkdir(mode=0o750, exist_ok=True)
    new = site.overlay.with_name("deploy.ini.new")
    with new.open("w", encoding="utf-8") as file:
        parser.write(file)
    new.chmod(0o644)
    new.replace(site.overlay)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="release.py",
        description="Install the service on this host, and switch its releases; docs/production.md tells all.",
        epilog="Exit codes: 0 ok, 1 doctor has found something, 2 bad input or build, 3 preflight, 4 migration, "
        "5 went back to the release before, 6 down, 75 another command is at work, 130 interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    dry, as_json = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    dry.add_argument("--dry-run", action="store_true", help="change nothing, and say what would be done")
    as_json.add_argument("--json", action="store_true", help="print JSON")

    add = commands.add_parser("init", parents=[dry], help="write units, web server and folders; again after a change")
    for option, text in OPTIONS.items():
        add.add_argument(f"--{option.replace('_', '-')}", metavar=option.upper(), help=text)
    add = commands.add_parser("deploy", parents=[dry], help="bring an artifact of `make release` live")
    add.add_argument("artifact", type=Path, metavar="ARTIFACT")
    add.add_argument("--offline", action="store_true", help="take packages from wheels/ beside the artifact")
    add = commands.add_parser("rollback", parents=[dry], help="go back to a release that was live")
    add.add_argument("release", nargs="?", metavar="RELEASE", help="its name; by default the one before")
    commands.add_parser("releases", parents=[as_json], help="list the releases that are kept")
    add = commands.add_parser("prune", parents=[dry], help="remove old releases")
    add.add_argument("--keep", type=_count, metavar="N", help="releases that stay (default: keep of deploy.ini)")
    commands.add_parser("status", parents=[as_json], help="show what is live and what runs")
    commands.add_parser("doctor", parents=[as_json], help="check the host, and say what mends what is wrong")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 1")
    return int(text)


# Who may change code.
ADMIN = 0
# Of a socket that listens, in /proc/net/unix.
LISTENS = "00010000"
RIGHTS = {"x": "enter", "r": "read", "w": "write"}
CERTIFICATE_DAYS = 14
# What lies beside the files that nginx may send, and how a slip in its settings would give it away.
LEAKS = (
    *("/.env", "/static../.env", "/static/../.env", "/media../.env", "/media/../.env", "/.git/config"),
    *("/protected/media/", "/protected/default../app.sqlite3", "/app.sqlite3", "/data/app.sqlite3", "/shared/.env"),
)
MARKS = {True: ("ok", 32), False: ("FAILED", 31), None: ("skipped", 33)}


class Finding(Exception):
    """What is wrong."""


class Skipped(Exception):
    """A check has nothing to look at."""


def doctor(site: Site, *, as_json: bool) -> int:
    """Check the host and the service, and print what was found; 1 if something is wrong. Nothing is changed.

    Raises:
        Failure: there is nothing to check, or it is not root who asks.
    """
    require_installed(site)
    rows = []
    for row in examine(site):
        rows.append(row)
        if not as_json:
            mark, colour = MARKS[row["ok"]]
            mark = f"\033[{colour}m{mark:7}\033[0m" if sys.stdout.isatty() else f"{mark:7}"
            print(f"{mark}  {row['name']:21}  {row['detail']}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=2))
    return FINDINGS if any(row["ok"] is False for row in rows) else 0


def examine(site: Site) -> Iterator[dict[str, Any]]:
    """The results of all checks, and then those of the service's own; `ok` is None for one that was skipped."""
    for name, (check, mend) in CHECKS.items():
        try:
            ok, detail = True, check(site)
        except Skipped as reason:
            ok, detail = None, str(reason)
        except Exception as error:  # noqa: BLE001  (the other checks shall run)
            what = str(error) if isinstance(error, (Finding, Failure, OSError)) else f"{type(error).__name__}: {error}"
            ok, detail = False, "; ".join(filter(None, (what, mend.format(site=site))))
        yield {"name": name, "ok": ok, "detail": _on_host(site, detail)}
    if site.current():
        try:
            told = service(site, "doctor", "--json")
            expect(told.stdout.startswith("["), told.stderr[-500:] or "it says nothing")
            rows = json.loads(told.stdout)
        except (OSError, ValueError, Finding) as error:
            rows = [{"name": "doctor", "ok": False, "detail": str(error)}]
        yield from ({**row, "name": f"service: {row['name']}", "detail": _on_host(site, row["detail"])} for row in rows)


def _on_host(site: Site, detail: str) -> str:
    """In one line that commands no terminal, and with the commands that the host has."""
    text = " ".join(detail.split()).replace("python main.py", site.slug)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def expect(good: object, otherwise: str) -> None:
    """Raise a `Finding` if something is not good."""
    if not good:
        raise Finding(otherwise)


def live(site: Site) -> str:
    """The live release, without which most checks have nothing to look at."""
    if current := site.current():
        return current
    raise Skipped("nothing is live yet")


def run_as(user: str, group: str, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as somebody else, so that the kernel itself says what that one may do."""
    if os.geteuid() == 0:
        number = grp.getgrnam(group).gr_gid
        options |= {"user": user, "group": number, "extra_groups": os.getgrouplist(user, number)}
    return run(*words, **options)


def service(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the live release as the service."""
    python = site.releases / live(site) / ".venv/bin/python"
    return run_as(site.user, site.group, python, "main.py", *words, cwd=site.link, env=environment(site))


def require_rights(site: Site, flag: str, path: Path) -> None:
    """Raise a `Finding` if nginx may not enter (x), read (r) or write (w) a path, or a folder on the way to it."""
    for place, needed in (*((folder, "x") for folder in reversed(path.parents)), (path, flag)):
        if run_as(WEB_SERVER, WEB_SERVER, "test", f"-{needed}", place).returncode:
            mend = "" if place.is_relative_to(site.root) else f"; `chmod o+x {place}`"
            raise Finding(f"{place}: {WEB_SERVER}, as which nginx runs, may not {RIGHTS[needed]} it{mend}")


def browse(site: Site, path: str, host: str = "") -> tuple[int, str | None, bytes]:
    """What nginx answers on this machine: status, ETag, body. Whether its certificate is good is another check."""
    with closing(http.client.HTTPConnection("127.0.0.1", timeout=ANSWER_TIMEOUT)) as client:
        if site.certificate:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            raw = socket.create_connection(("127.0.0.1", 443), ANSWER_TIMEOUT)
            client.sock = context.wrap_socket(raw, server_hostname=host or site.host)
        client.request("GET", path, headers={"Host": host or site.host})
        response = client.getresponse()
        return response.status, response.headers["ETag"], response.read()


def check_host(site: Site) -> str:
    """What `init` needs is there."""
    problems = list(problems_of(site))
    expect(not problems, "; ".join(problems))
    return f"{site.host}, as {site.user}:{site.group}"


def check_written_files(site: Site) -> str:
    """Units, web server and command are as this tool writes them."""
    files = render(site)
    wrong = [str(path) for path, text in files.items() if read(path) != text]
    expect(not wrong, f"not as they were written: {', '.join(wrong)}")
    return f"{len(files)} as they were written"


def check_folders(site: Site) -> str:
    """Owners and modes are those of tmpfiles.d."""
    lines = render(site)[Path("/etc/tmpfiles.d") / f"{site.slug}.conf"].splitlines()
    wanted = [line.split()[1:5] for line in lines if line.startswith("d")]
    for path, mode, user, group in wanted:
        found = os.lstat(path)
        expect(stat.S_ISDIR(found.st_mode), f"{path}: expected a folder")
        owner = (pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
        expect((found.st_uid, found.st_gid) == owner, f"{path}: expected owner {user}:{group}")
        is_mode = stat.S_IMODE(found.st_mode)
        expect(is_mode == int(mode, 8), f"{path}: mode {is_mode:04o}, expected {mode}")
    return f"{len(wanted)} have their owners and modes"


def check_app_folder(site: Site) -> str:
    """As `appdir check`, for the user and group of this installation."""
    folder = site.releases / live(site)
    words = ("main.py", "appdir", "check", "--path", site.shared, "--user", site.user, "--group", site.group)
    done = run(folder / ".venv/bin/python", *words, cwd=folder, env=environment(site))
    expect(done.returncode == 0, "; ".join((done.stdout + done.stderr).splitlines()))
    return str(site.shared)


def check_code(site: Site) -> str:
    """Only root can change what runs."""
    count = 0
    for folder, folders, files in os.walk(site.releases):
        for name in (".", *folders, *files):
            found = os.lstat(f"{folder}/{name}")
            good = found.st_uid == ADMIN and (stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o022)
            expect(good, f"{folder}/{name}: others than root can change it")
        count += len(files)
    return f"{count} files are root's alone"


def check_release(site: Site) -> str:
    """The link leads to a whole release that has served."""
    expect(site.current(), f"{site.link}: leads to no release")
    folder, target = site.releases / live(site), os.readlink(site.link)
    expect(target == f"releases/{folder.name}", f"{site.link}: leads to {target!r}, expected one of releases/")
    told = (read(folder / "RELEASE") or "").strip()
    expect(told == folder.name and (folder / "release.json").is_file(), f"{folder}: is no whole release")
    expect(site.is_good(folder.name), f"{folder.name}: has never served, or was given up")
    return f"{folder.name} is live"


def check_packages(site: Site) -> str:
    """They are the live release's own."""
    venv, script = site.root / "venv", site.releases / live(site) / ".venv/bin/gunicorn"
    expect(venv.is_symlink() and os.readlink(venv) == "app/.venv", f"{venv}: expected a link to app/.venv")
    python = (read(script) or "").partition("\n")[0]
    expect(python.startswith(f"#!{script.parent}/"), f"{script}: runs {python!r}, expected its own Python")
    return str(script.parent.parent)


def check_units(site: Site) -> str:
    """They run now and after a reboot, as the files say that systemd has read."""
    shared = {"NeedDaemonReload": "no", "UnitFileState": "enabled", "ActiveState": "active"}
    own = {"User": site.user, "Group": site.group, "WorkingDirectory": str(site.link)}
    services = {site.web, *site.background}
    for unit in (site.listener, *sorted(services), "nginx.service"):
        expected = shared | (own if unit in services else {})
        shown = run("systemctl", "show", f"--property={','.join(expected)}", unit).stdout
        found = dict(line.split("=", 1) for line in shown.splitlines())
        for name, value in expected.items():
            expect(found.get(name) == value, f"{unit}: {name} is {found.get(name)!r}, expected {value!r}")
    return "enabled, active, and as systemd has read them"


def check_processes(site: Site) -> str:
    """Every one runs the live release."""
    folder, count = site.releases / live(site), 0
    for unit in (site.web, *site.background):
        group = run("systemctl", "show", "--property=ControlGroup", "--value", unit).stdout.strip()
        processes = [path.parent for path in Path("/proc").glob("[0-9]*/cgroup") if is_in_group(path, group)]
        expect(processes, f"{unit}: has no process")
        for process in processes:
            found = os.readlink(process / "cwd")
            expect(found == str(folder), f"{unit}: process {process.name} runs in {found}, expected {folder}")
        count += len(processes)
    return f"{count} run {folder.name}"


def is_in_group(path: Path, group: str) -> bool:
    """Whether a process, by its file `cgroup` in /proc, belongs to a unit."""
    try:
        return bool(group) and any(line.endswith(group) for line in path.read_text().splitlines())
    except OSError:
        return False  # It has ended.


def check_left_over(site: Site) -> str:
    """Nothing of an interrupted deploy runs."""
    with (site.root / ".deploy.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Skipped(f"at work: {file.read()}") from None
    units = run("systemctl", "list-units", "--all", "--plain", "--no-legend", *site.instances).stdout.split()
    expect(not units, f"{(units or [''])[0]}: is left of a deploy")
    return "nothing"


def check_socket(site: Site) -> str:
    """Systemd listens on it, and nginx may connect."""
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    listens = any(words[-1] == str(site.socket) and words[3] == LISTENS for words in sockets)
    expect(listens, f"{site.socket}: nobody listens")
    found = site.socket.lstat()
    owner = (pwd.getpwnam(WEB_SERVER).pw_uid, grp.getgrnam(site.group).gr_gid, 0o660)
    good = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == owner
    expect(good, f"{site.socket}: expected owner {WEB_SERVER}:{site.group} and mode 0660")
    require_rights(site, "w", site.socket)
    return str(site.socket)


def check_answer(site: Site) -> str:
    """On the socket, the live release says that it is ready."""
    return require_ready(site, *ask(site, site.socket, "/readyz"))


def check_nginx(_: Site) -> str:
    """It can read its files; a warning may be another file that takes this host's name."""
    said = run("nginx", "-t", "-q").stderr.strip()
    expect(not said, said)
    return "`nginx -t` has nothing to say"


def check_site(site: Site) -> str:
    """Through nginx, the live release says that it is ready."""
    status, _, body = browse(site, "/readyz")
    return require_ready(site, status, body)


def require_ready(site: Site, status: int, body: bytes) -> str:
    """Raise a `Finding` if an answer of /readyz is not the live release's, or not good."""
    answer: dict[str, Any] = json.loads(body) if status in (200, 503) and body.startswith(b"{") else {}
    bad = ", ".join(f"{name}: {result}" for name, result in answer.get("checks", {}).items() if result != "ok")
    expect(status == 200, f"/readyz: status {status}" + (f", {bad}" if bad else ""))
    expect(answer.get("release") == live(site), f"/readyz: release {answer.get('release')}, expected {live(site)}")
    return f"{live(site)} is ready"


def check_other_hosts(site: Site) -> str:
    """Who asks for another name gets no page."""
    try:
        status = browse(site, "/", "unknown.invalid")[0]
    except (http.client.RemoteDisconnected, ConnectionResetError, ssl.SSLError):
        return "closed"
    raise Finding(f"unknown.invalid: got status {status}, expected a closed connection")


def check_static(site: Site) -> str:
    """Nginx itself sends those of the live release."""
    names = static_files(site, live(site))
    for name in names:
        path = site.shared / "static" / name
        same = path.is_file() and filecmp.cmp(site.link / "app/static" / name, path, shallow=False)
        expect(same, f"{path}: is not the release's")
    if not names:
        raise Skipped("the release has none")
    return require_sent(site, "static", names[0])


def check_media(site: Site) -> str:
    """Nginx itself sends users' files."""
    media = site.shared / "media"
    require_rights(site, "x", media)
    paths = (Path(folder, name) for folder, _, names in os.walk(media) for name in names)
    shown = (path.relative_to(media) for path in paths if stat.S_ISREG(path.lstat().st_mode))
    name = next((name for name in shown if not any(part.startswith(".") for part in name.parts)), None)
    if name is None:
        raise Skipped("there is no file yet")
    return require_sent(site, "media", str(name))


def require_sent(site: Site, folder: str, name: str) -> str:
    """Raise a `Finding` if nginx does not send a file of the app folder: its ETag shows the file's time and size."""
    path = site.shared / folder / name
    require_rights(site, "r", path)
    status, etag, _ = browse(site, urllib.parse.quote(os.fsencode(f"/{folder}/{name}")))
    found = path.lstat()
    sent = status == 200 and etag == f'"{int(found.st_mtime):x}-{found.st_size:x}"'
    expect(sent, f"/{folder}/{name}: got status {status}, expected the file {path}")
    return f"/{folder}/{name}"


def check_leaks(site: Site) -> str:
    """Of the app folder, only static files and media can be asked for."""
    for path in LEAKS:
        status = browse(site, path)[0]
        expect(status >= 400, f"{path}: got status {status}")
    return f"{len(LEAKS)} ways are closed"


def check_certificate(site: Site) -> str:
    """Nginx serves the one in the file, which is the host's, and has two weeks left."""
    if not site.certificate:
        raise Skipped("nginx speaks HTTP, for a proxy in front that speaks TLS")
    context = ssl.create_default_context(cafile=site.certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    raw = socket.create_connection(("127.0.0.1", 443), ANSWER_TIMEOUT)
    try:
        with context.wrap_socket(raw, server_hostname=site.host) as connection:
            served, known = connection.getpeercert(binary_form=True), connection.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise Finding(
            f"{site.certificate}: nginx serves another one, or it is not good: {error.verify_message}"
        ) from None
    first = Path(site.certificate).read_text().partition(ssl.PEM_FOOTER)[0].rpartition(ssl.PEM_HEADER)[2]
    in_file = ssl.PEM_cert_to_DER_cert(f"{ssl.PEM_HEADER}{first}{ssl.PEM_FOOTER}")
    expect(served == in_file, f"{site.certificate}: nginx still serves another one")
    days = (ssl.cert_time_to_seconds(str(known["notAfter"])) - time.time()) / 86400
    expect(days > CERTIFICATE_DAYS, f"{site.certificate}: ends in {days:.0f} days")
    return f"{site.host} for {days:.0f} days"


def check_clock(_: Site) -> str:
    """Tells only: that of a virtual machine may be right without it."""
    known = run("timedatectl", "show", "--property=NTPSynchronized", "--value").stdout.strip() == "yes"
    if not known:
        raise Skipped("not set over the network; `timedatectl set-ntp true`, unless this machine's host sets it")
    return "set over the network"


def check_upload_limit(site: Site) -> str:
    """Nginx lets through what the service takes."""
    told = service(site, "config", "show", "--json")
    if told.returncode:
        raise Skipped("needs the service's settings")
    shown = json.loads(told.stdout)
    needed = max(shown[f"security.max_{what}_size"]["value"] for what in ("request", "upload"))
    limit = int(site.upload_limit.rstrip("kmg")) << {"k": 10, "m": 20, "g": 30}.get(site.upload_limit[-1], 0)
    expect(limit >= needed, f"upload_limit: found {site.upload_limit}, expected {needed} bytes or more")
    return f"{site.upload_limit}, for {needed} bytes"


def check_last_command(site: Site) -> str:
    """The last deploy or rollback has ended well."""
    last = last_logged(site, "deploy", "rollback")
    if last is None:
        raise Skipped("there was none")
    told = f"{last['command']} of {last.get('at')}"
    expect(last.get("ok"), f"{told}: {last.get('error')}")
    return told


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


# What each check is called, and what mends what it finds.
CHECKS: dict[str, tuple[Callable[[Site], str], str]] = {
    "host": (check_host, "then `release.py init --host NAME`"),
    "written files": (check_written_files, "`release.py init`"),
    "folders": (check_folders, "`systemd-tmpfiles --create {site.slug}.conf`"),
    "app folder": (check_app_folder, ""),
    "code": (check_code, "`chmod -R go-w {site.releases}`, then `release.py deploy ARTIFACT`; and ask who changed it"),
    "release": (check_release, "`release.py releases`, then `rollback RELEASE` or `deploy ARTIFACT`"),
    "packages": (check_packages, "`ln -sfn app/.venv {site.root}/venv`, then `release.py deploy ARTIFACT`"),
    "units": (
        check_units,
        "`systemctl daemon-reload`, `systemctl enable --now UNIT`; `systemctl cat` and `journalctl -n 50 -u` show more",
    ),
    "processes": (check_processes, "`systemctl restart {site.web} {site.background[0]} {site.background[1]}`"),
    "left over": (check_left_over, "`systemctl stop '{site.slug}@*' '{site.slug}-preflight@*'`"),
    "socket": (
        check_socket,
        "`systemd-tmpfiles --create {site.slug}.conf`, then `systemctl restart {site.listener} {site.web}`; "
        "`namei -l {site.socket}`",
    ),
    "answer": (check_answer, "`journalctl -u {site.web} -n 50`"),
    "nginx": (check_nginx, "mend that file, then `systemctl reload-or-restart nginx`"),
    "site": (check_site, "`systemctl reload-or-restart nginx`; `tail /var/log/nginx/error.log`"),
    "other hosts": (check_other_hosts, "`nginx -T | grep -B3 default_server`, and remove what is not ours"),
    "static files": (check_static, "`chmod -R a+rX {site.shared}/static`, or `release.py deploy ARTIFACT` again"),
    "media": (
        check_media,
        "`chown -R {site.user}:{site.group} {site.shared}/media`, `systemd-tmpfiles --create {site.slug}.conf`",
    ),
    "leaks": (check_leaks, "`nginx -T` shows what sends it; `release.py init`, and new secrets in .env"),
    "certificate": (check_certificate, "`certbot renew`, then `systemctl reload nginx`"),
    "clock": (check_clock, "`timedatectl set-ntp true`"),
    "upload limit": (check_upload_limit, "upload_limit in {site.overlay}, then `release.py init`"),
    "last command": (check_last_command, "mend that, then `release.py deploy ARTIFACT`"),
}


def main() -> int:
    """Run one command, and return its exit code."""
    options = arguments().parse_args()
    os.umask(0o022)
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    site = Site("")
    try:
        site = load_site()
        match options.command:
            case "init":
                given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
                if "user" in given:
                    given.setdefault("group", given["user"])
                init(replace(site, **given), given, dry_run=options.dry_run)
            case "deploy":
                deploy(site, options.artifact, offline=options.offline, dry_run=options.dry_run)
            case "rollback":
                rollback(site, options.release, dry_run=options.dry_run)
            case "prune":
                require_installed(site)
                prune(site, options.keep, dry_run=options.dry_run)
            case "releases":
                show(describe(site), as_json=options.json)
            case "status":
                show(status(site), as_json=options.json)
            case "doctor":
                return doctor(site, as_json=options.json)
    except Failure as error:
        say(str(error).replace("python main.py", site.slug), error=True)
        return error.code
    except KeyboardInterrupt:
        say(f"interrupted; live: {site.current()}", error=True)
        return INTERRUPTED
    except OSError as error:
        say(f"{error.filename or site.root}: {error.strerror or error}", error=True)
        return BAD_INPUT
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def show(found: list[dict[str, Any]] | dict[str, Any], *, as_json: bool) -> None:
    """Print what was found, for programs or for people."""
    if as_json:
        print(json.dumps(found, indent=2))
    elif isinstance(found, list):
        for row in found:
            say(f"{row['release']}  {row['version'] or '-'}  {(row['commit'] or '-')[:12]}  {row['state']}")
    else:
        say(f"live: {found['live']}")
        for unit, state in found["units"].items():
            say(f"{unit}: {state}" + (f", runs {release}" if (release := found["running"].get(unit)) else ""))
        if last := found["last"]:
            say(f"last: {last['command']} at {last['at']} by {last['by']}: {last.get('error', 'ok')}")


if __name__ == "__main__":
    sys.exit(main())
