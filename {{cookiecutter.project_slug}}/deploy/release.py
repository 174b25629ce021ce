#!/usr/bin/env python3
"""Installs the service on a host, switches its releases, goes back to an earlier one, and checks the host.

It needs nothing but the host's own Python, 3.11 or newer, and runs as root; docs/production.md leads through it.

A release is a folder in /srv/<slug>/releases, named by the time in UTC at which it came. The link /srv/<slug>/app leads
to the live one. Each release is an instance of one systemd unit, <slug>@<release>.service, and all of them share the
socket that systemd holds: a new one starts beside the old one, which ends once the new one is ready. So no request
fails, and what does not start was never live. A file LIVE in a release says that it has been live.
"""

# ruff: noqa: S603  (a script that prints, and runs the host's programs)

import argparse
import configparser
import fcntl
import gzip
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
# As which Debian's nginx runs.
WEB_SERVER = "www-data"
# What the service writes in the app folder.
WRITTEN = ("data", "media", "logs", "work", "backups")
# What deploy.ini says, and how it has to look: all of it ends in units and in nginx's files, which root reads.
HOST = r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
SETTINGS = {
    "host": (HOST, "a name like blog.example.com"),
    "user": (r"(?!root$)[a-z_][a-z0-9_-]{0,30}", "a user without rights"),
    "certificate": (r"|(/[A-Za-z0-9][A-Za-z0-9._-]*)+", "a folder like /etc/letsencrypt/live/blog.example.com"),
    "upload_limit": (r"[1-9]\d{0,3}[km]", "a size like 6m"),
    "keep": (r"[1-9]\d?", "a number from 1 to 99"),
}
# Where each file that belongs outside of the service's own folder comes from.
FILES = {
    "/etc/systemd/system/{slug}.socket": "systemd/web.socket",
    "/etc/systemd/system/{slug}@.service": "systemd/web.service",
    "/etc/systemd/system/{slug}.service": "systemd/live.service",
    "/etc/systemd/system/{slug}-queue.service": "systemd/queue.service",
    "/etc/systemd/system/{slug}-scheduler.service": "systemd/scheduler.service",
    "/etc/tmpfiles.d/{slug}.conf": "tmpfiles.conf",
    "/etc/nginx/conf.d/{slug}.conf": "nginx/http.conf",
    "/etc/nginx/conf.d/default-closed.conf": "nginx/default.conf",
    "/usr/local/bin/{slug}": "command",
}
# No release may bring these: secrets, what belongs in the app folder, and what a release is given here.
RESERVED = {".env", "instance", "secrets", "media", "data", "logs", "RELEASE", "LIVE", ".venv"}
# Bytes that one header of an archive may have, and all its files.
PIECE, LARGEST = 1 << 20, 300 << 20
# Seconds that a new release has until it is ready, and that one answer may take.
PATIENCE, ANSWER = 20, 5
FAILED, BAD_INPUT, LOCKED = 1, 2, 75


class Failure(Exception):
    """What went wrong, in a line, and the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Site:
    """One installation: what its deploy.ini says, and the paths and units that follow from it."""

    slug: str
    root: Path
    host: str
    user: str
    certificate: str
    upload_limit: str
    keep: str

    @property
    def shared(self) -> Path:
        return self.root / "shared"

    @property
    def background(self) -> tuple[str, str]:
        return f"{self.slug}-queue.service", f"{self.slug}-scheduler.service"

    def folder(self, release: str) -> Path:
        return self.root / "releases" / release

    def web(self, release: str) -> str:
        return f"{self.slug}@{release}.service"

    def live(self) -> str:
        """The release that the link leads to; empty before the first."""
        return os.readlink(link).rpartition("/")[2] if (link := self.root / "app").is_symlink() else ""

    def releases(self) -> list[str]:
        """Those that are kept and have been live, oldest first."""
        return sorted(path.parent.name for path in self.root.glob("releases/*/LIVE"))


def load_site(srv: Path = Path("/srv")) -> Site:
    """The installation by root's own file: nothing that the service writes or a backup holds decides what root does."""
    slug = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["name"]
    file, parser = srv / slug / "deploy.ini", configparser.ConfigParser(interpolation=None)
    try:
        if (found := file.stat()).st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Failure(f"{file}: others may change it; run: chown root: {file}; chmod 644 {file}", BAD_INPUT)
        parser.read_string(file.read_text())
        values = {**parser["deploy"], "user": parser["deploy"]["user"] or slug}
    except FileNotFoundError:
        raise Failure(f"{file}: is not there; run: install -D {PROJECT}/deploy/deploy.ini {file}", BAD_INPUT) from None
    except (OSError, ValueError, KeyError, configparser.Error) as error:
        raise Failure(f"{file}: cannot be read: {' '.join(str(error).split())}", BAD_INPUT) from None
    if values.keys() != SETTINGS.keys():
        raise Failure(f"{file}: found {', '.join(values)}, expected {', '.join(SETTINGS)}", BAD_INPUT)
    for key, value in values.items():
        if not re.fullmatch(SETTINGS[key][0], value):
            raise Failure(f"{file}: {key}: found {value!r}, expected {SETTINGS[key][1]}", BAD_INPUT)
    return Site(slug, srv / slug, **values)


def init(site: Site) -> None:
    """Write units, nginx's site and folders as deploy.ini says; nothing changes if nginx refuses."""
    if problem := next(problems_of(site), None):
        raise Failure(problem, BAD_INPUT)
    files = render(site)
    before = {path: path.read_text() if path.exists() else None for path in files}
    try:
        for path, text in files.items():
            write(path, text)
        run("nginx", "-t", "-q")
    except BaseException:
        for path, old in before.items():
            write(path, old) if old is not None else path.unlink(missing_ok=True)
        raise
    run("systemd-sysusers", "--inline", f"u {site.user}")
    run("systemd-tmpfiles", "--create", f"{site.slug}.conf")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "-q", "nginx")
    run("systemctl", "reload-or-restart", "nginx")
    if (live := site.live()) and before != files:
        service(site, live, "appdir", "make", "--user", site.user, "--group", site.user)
        # A socket that is closed loses requests, so only one that has changed is.
        sockets = [path.name for path in files if path.suffix == ".socket" and before[path] != files[path]]
        run("systemctl", "restart", *sockets, site.web(live), *site.background)
    say(f"{site.root}: ready for {site.host}" + ("" if live else "; next: release.py deploy ARTIFACT"))


def problems_of(site: Site) -> Iterator[str]:
    """Why the service cannot be installed here, with what mends it."""
    for name in ("fullchain.pem", "privkey.pem") if site.certificate else ():
        file = Path(site.certificate, name).resolve()
        if file.is_relative_to(site.root) or not file.is_file() or file.stat().st_uid or file.stat().st_mode & 0o022:
            yield f"{site.certificate}/{name}: expected a file that root alone may change, outside of {site.root}"
    with suppress(OSError, KeyError):
        if (owner := (site.shared / "data").owner()) != site.user:
            folders = " ".join(str(site.shared / name) for name in WRITTEN)
            yield f"user: found {site.user}, but the data is {owner}'s; run: chown -hR {site.user}: {folders}"
    if not (site.root / "releases").exists():
        taken = [path for path in render(site) if path.exists() and path.name != "default-closed.conf"]
        taken += Path("/usr/lib/systemd/system").glob(f"{site.slug}.s*")
        if found := next(map(str, taken), shutil.which(site.slug)):
            yield f"{found}: is there already, and not of this service; move it away, or choose another slug"
    if not Path("/run/systemd/system").is_dir() or not shutil.which("nginx"):
        yield "this host: expected systemd and nginx; run: apt-get install nginx python3-venv"


def render(site: Site) -> dict[Path, str]:
    """The text of every file that belongs outside of the service's own folder, by its path."""
    parts = {"hardening": "systemd/hardening.conf", "locations": "nginx/locations.conf", "maps": "nginx/maps.conf"}
    more = {name: (PROJECT / "deploy" / path).read_text().strip() for name, path in parts.items()}
    more["acl"] = "" if site.user == WEB_SERVER else (PROJECT / "deploy/acl.conf").read_text().strip()
    more["written"] = " ".join(f"-{site.shared / name}" for name in WRITTEN)
    files = {}
    for path, source in FILES.items():
        name = "nginx/https.conf" if site.certificate and source == "nginx/http.conf" else source
        text = (PROJECT / "deploy" / name).read_text()
        files[Path(path.format(slug=site.slug))] = fill_in(fill_in(text, site, **more), site, **more)
    return files


def fill_in(text: str, site: Site, **more: str) -> str:
    """Put the values in the places of their names, which stand in angle brackets."""
    return re.sub("<([a-z_]+)>", lambda name: str({**vars(site), **more}[name[1]]), text)


def deploy(site: Site, artifact: str) -> None:
    """Bring an artifact of `make release` live; if that fails, what was live before still is."""
    end_others(site)
    prune(site)
    # Never a name before that of another release, whatever the clock says.
    release = max(f"{datetime.now(UTC):%Y%m%d%H%M%S}", str(int(max(site.releases(), default="0")) + 1))
    folder = site.folder(release)
    folder.mkdir()
    try:
        with step("unpack"):
            unpack(Path(artifact), folder, site.slug)
            (folder / "RELEASE").write_text(release)
        with step("packages"):
            install_packages(folder, Path(artifact).resolve().parent / "wheels")
        with step("app folder"):
            service(site, release, "appdir", "make", "--user", site.user, "--group", site.user)
            run("systemd-tmpfiles", "--create", f"{site.slug}.conf")
            for path, name in static_files(folder):
                # None is ever changed, so pages of older releases keep theirs.
                (site.shared / "static" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, site.shared / "static" / name)
        with step("check"):
            failed = check(site, release)
        if "migrations" in failed:
            with step("backup and migrations"):
                if site.live():
                    service(site, release, "backup", "create")
                service(site, release, "db", "upgrade")
                failed = check(site, release)
        if failed:
            raise Failure("; ".join(f"{name}: {detail}" for name, detail in failed.items()))
        activate(site, release)
    except BaseException:
        if site.live() != release:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    prune(site)


class Bounded(gzip.GzipFile):
    """Refuses to read more at once than a header of an archive needs: a larger one could fill the memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= PIECE:
            raise tarfile.ReadError(f"found a header of {size} bytes, expected at most {PIECE}")
        return super().read(size)


def unpack(artifact: Path, folder: Path, slug: str) -> None:
    """Unpack an artifact: files and folders, which are root's, and nothing else."""
    total = 0
    try:
        with Bounded(artifact) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                path, total = PurePosixPath(member.name), total + member.size
                if path.is_absolute() or ".." in path.parts or path.name == ".env" or {*path.parts[:1]} & RESERVED:
                    raise tarfile.ReadError(f"found {member.name!r}, which no release may have")
                if not (member.isfile() or member.isdir()) or total > LARGEST:
                    raise tarfile.ReadError(f"found {member.name!r}, expected files, together at most {LARGEST} bytes")
                if content := archive.extractfile(member):
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    with (folder / path).open("xb") as file:
                        shutil.copyfileobj(content, file, PIECE // 2)
                    (folder / path).chmod(0o755 if member.mode & 0o100 else 0o644)
            while stream.read(PIECE):  # To its end, where its checksum is.
                pass
        name = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
    except (tarfile.TarError, EOFError, zlib.error, ValueError, KeyError, RecursionError, OSError) as error:
        raise Failure(f"{artifact}: {error}; run `make release`, and copy it again", BAD_INPUT) from None
    if name != slug:
        raise Failure(f"{artifact}: found a release of {name}, expected {slug}", BAD_INPUT)


def install_packages(folder: Path, wheels: Path) -> None:
    """Make the release's own environment, by uv where there is one; from `wheels` alone, if that is there."""
    venv, environ = folder / ".venv", {**os.environ, "UV_LINK_MODE": "copy", "UV_PYTHON_DOWNLOADS": "never"}
    # Nothing is built here, as root, and nothing comes that is not pinned.
    flags = ["--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", "requirements.txt"]
    flags += ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
    if uv := shutil.which("uv"):
        run(uv, "venv", "-q", "--python", sys.executable, venv)
        run(uv, "pip", "install", "-q", "--compile-bytecode", "--python", venv, *flags, cwd=folder, env=environ)
        (venv / ".lock").unlink(missing_ok=True)  # Everybody may write it.
    else:
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin/pip", "install", "-q", "--disable-pip-version-check", *flags, cwd=folder)
    run(venv / "bin/python", "-m", "compileall", "-q", "-x", r"/\.venv/", folder)


def static_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """A release's static files, each with its place in `shared/static`, where the `v` of its address is a folder."""
    for path in sorted((folder / "app/static").rglob("*")):
        if path.is_file():
            version = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            yield path, f"{version}/{path.relative_to(folder / 'app/static')}"


def check(site: Site, release: str) -> dict[str, str]:
    """What a release's own `main.py check` finds wrong, by name. A mail server may be away: mails wait for it."""
    told = service(site, release, "check", "--json", check=False)
    try:
        failed = {row["check"]: row["detail"] for row in json.loads(told) if row["result"] == "FAILED"}
        return {name: detail for name, detail in failed.items() if name != "mail"}
    except ValueError:
        raise Failure(f"main.py check: {(told.splitlines() or ['no answer'])[-1]}") from None


def rollback(site: Site, release: str | None) -> None:
    """Go back to a release that was live, by default the one before. The database stays as it is."""
    target = release or max((name for name in site.releases() if name < site.live()), default="")
    if target not in site.releases():
        found = f"found {target or 'none before the live one'}, expected one of {', '.join(site.releases())}"
        raise Failure(f"RELEASE: {found}", BAD_INPUT)
    end_others(site)
    activate(site, target)


def activate(site: Site, release: str) -> None:
    """Start a release beside the live one, wait until it is ready, point the link, and end the other one."""
    before, units = site.live(), (f"{site.slug}.socket", f"{site.slug}.service", *site.background)
    try:
        with step(f"start {release}"):
            run("systemctl", "start", site.web(release))
            wait_until_ready(site, release)
        point(site, release)
        with step("queue and scheduler"):
            run("systemctl", "enable", "-q", *units)
            run("systemctl", "restart", *site.background)
    except BaseException:
        if not before:
            (site.root / "app").unlink(missing_ok=True)
            run("systemctl", "disable", "-q", "--now", *units, check=False)
        elif site.live() != before:
            point(site, before)
            run("systemctl", "restart", *site.background, check=False)
        end_others(site)
        raise
    (site.folder(release) / "LIVE").touch()
    with step("end of the others"):
        end_others(site)
    say(f"live: {release}")


def wait_until_ready(site: Site, release: str) -> None:
    """Wait until this release, and not the one beside it, says on the socket that it is ready."""
    deadline, refusals, told = time.monotonic() + PATIENCE, 0, "no answer"
    while time.monotonic() < deadline and refusals < 3:
        try:
            answer = json.loads(ask(site, "/readyz")[1])
            if answer["release"] == release:
                if answer["status"] == "ok":
                    return
                refusals, told = refusals + 1, json.dumps(answer["checks"])
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            told = str(error)
        time.sleep(0.05)
    raise Failure(f"{release}: /readyz: {told}; see: journalctl -n 50 -u {site.web(release)}")


def ask(site: Site, path: str, *, nginx: bool = False) -> tuple[int, bytes]:
    """Status and body of what the service answers on its socket, or of what nginx does."""
    with socket.socket(socket.AF_INET if nginx else socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER)
        port = 443 if site.certificate else 80
        connection.connect(("127.0.0.1", port) if nginx else str(site.root / "run/gunicorn.sock"))
        client = http.client.HTTPConnection(site.host)
        client.sock = connection
        if nginx and site.certificate:
            # Whether browsers take the certificate is another question.
            client.sock = ssl._create_unverified_context().wrap_socket(connection, server_hostname=site.host)  # noqa: S323
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read(PIECE)


def point(site: Site, release: str) -> None:
    """Let the link lead to a release, at once (rename(2)) and for good."""
    new = site.root / ".app.new"
    new.unlink(missing_ok=True)
    new.symlink_to(f"releases/{release}")
    os.sync()
    new.replace(site.root / "app")
    os.sync()


def end_others(site: Site) -> None:
    """End all releases but the live one, also what a command that was killed has left."""
    listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"{site.slug}@*").splitlines()
    if units := {line.split()[0] for line in listed} - {site.web(site.live())}:
        run("systemctl", "stop", *units)
        run("systemctl", "reset-failed", *units, check=False)


def prune(site: Site) -> None:
    """Remove what is not needed any more: never the live release, nor the newest ones that were live."""
    for path in (site.root / "releases").iterdir():
        if path.name not in {site.live(), *site.releases()[-int(site.keep) :]}:
            shutil.rmtree(path, ignore_errors=True)


def status(site: Site) -> None:
    """Print the releases, and the units that are there."""
    for release in site.releases():
        say(f"{release}{'  live' if release == site.live() else ''}")
    say(run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"{site.slug}*"))


def doctor(site: Site) -> None:
    """Print a line for each check of doctor.toml: `ok`, or what is wrong, and the command that mends it."""
    writable = " -o ".join(f"-path {site.root}/shared/{name}" for name in WRITTEN)
    text = fill_in((PROJECT / "deploy/doctor.toml").read_text(), site, live=site.live(), writable=writable)
    checks, bad = tomllib.loads(text)["check"], 0
    for row in checks:
        try:
            look = LOOKS.get(row.get("look"))
            found = list(look(site)) if look else unexpected(row["as"], row["run"].split(), row.get("says"))
        except (OSError, ValueError, LookupError, Failure, http.client.HTTPException) as error:
            found = [str(error) or type(error).__name__]
        bad += bool(found)
        say(f"{'FAILED' if found else 'ok':8}{row['point']}")
        for line in (*found[:5], f"run: {row['mend']}") if found else ():
            say(f"        {line}")
    if bad:
        raise Failure(f"{bad} of {len(checks)} checks have failed")


def unexpected(user: str, command: list[str], says: str | None = None) -> list[str]:
    """The lines that a command, run as a user, should not print; it has to succeed."""
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]
    done = subprocess.run(words, text=True, errors="replace", capture_output=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line and line.split()[0] != says]
    return lines or [f"{' '.join(command)}: exit code {done.returncode}"] * bool(done.returncode)


def find_changed_files(site: Site) -> Iterator[str]:
    for path, text in render(site).items():
        if not path.exists() or path.read_text() != text:
            yield f"{path}: is not what init writes"


def find_wrong_answer(site: Site, *, nginx: bool = False) -> Iterator[str]:
    status, body = ask(site, "/readyz", nginx=nginx)
    # Which release it is, the service says on its socket alone.
    if status != 200 or not (nginx or json.loads(body)["release"] == site.live()):
        yield f"/readyz: found {status} {body[:200]!r}, expected that {site.live()} is ready"


def find_unsent_static_files(site: Site) -> Iterator[str]:
    for path, name in static_files(site.folder(site.live())):
        version, _, file = name.partition("/")
        yield from unexpected(WEB_SERVER, ["cmp", str(path), f"{site.shared}/static/{name}"])
        if ask(site, f"/static/{file}?v={version}", nginx=True) != (200, path.read_bytes()):
            yield f"/static/{file}?v={version}: nginx does not send it"


def find_leaks(site: Site) -> Iterator[str]:
    for path in ("/static../.env", "/media../.env", "/media/..%2f.env", "/.env", "/protected/media/"):
        if (status := ask(site, path, nginx=True)[0]) < 400:
            yield f"{path}: found {status}, expected 404"


def find_hidden_visitors(site: Site) -> Iterator[str]:
    addresses = []
    for line in unexpected(site.user, ["tail", "-n", "200", f"{site.shared}/logs/audit.jsonl"]):
        with suppress(ValueError, LookupError, TypeError):
            addresses.append(ipaddress.ip_address(json.loads(line)["address"]))
    newest = addresses[-20:]
    if len(newest) == 20 and len(set(newest)) == 1 and newest[0].is_private:
        yield f"the newest {len(newest)} logins are all from {newest[0]}: if that is a proxy, its visitors share limits"


LOOKS: dict[str, Callable[[Site], Iterable[str]]] = {
    "leaks": find_leaks,
    "nginx": lambda site: [*unexpected("root", ["nginx", "-t", "-q"]), *find_wrong_answer(site, nginx=True)],
    "hidden_visitors": find_hidden_visitors,
    "service": lambda site: [f"{name}: {detail}" for name, detail in check(site, site.live()).items()],
    "socket": find_wrong_answer,
    "static_files": find_unsent_static_files,
    "written_files": find_changed_files,
}


def service(site: Site, release: str, *words: str, check: bool = True) -> str:
    """Run a command of a release's own `main.py`, which becomes the service's user where it should."""
    folder, environ = site.folder(release), {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    environ |= {"APP_ENV": "production", "APP_DIR": str(site.shared), "PYTHONDONTWRITEBYTECODE": "1"}
    return run(folder / ".venv/bin/python", "main.py", *words, check=check, cwd=folder, env=environ, umask=0o027)


def run(*command: str | Path, check: bool = True, **options: Any) -> str:
    """What a program prints; if it fails, the last line of it is the reason."""
    words = list(map(str, command))
    done = subprocess.run(words, text=True, errors="replace", capture_output=True, check=False, **options)
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    if check and done.returncode:
        # nginx tells first what is wrong, others last.
        told = next((line for line in lines if "[emerg]" in line), lines[-1])
        raise Failure(f"{Path(words[0]).name} {' '.join(words[1:3])}: {told}")
    return done.stdout.strip() or ("" if check else lines[-1])


def write(path: Path, text: str) -> None:
    """Write a file of root's, at once; a script may be run."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o755 if text.startswith("#!") else 0o644)
    new.replace(path)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Around one step, which is printed with its time."""
    say(f"{name} ... ", end="")
    start, ended = time.monotonic(), "failed after "
    try:
        yield
        ended = ""
    finally:
        say(f"{ended}{time.monotonic() - start:.1f} s")


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """One command at a time. The kernel gives the lock back, however this process ends."""
    with (site.root / ".deploy.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"{file.name}: another command is at work; wait for it", LOCKED) from None
        yield


def say(text: str, end: str = "\n", file: Any = sys.stdout) -> None:
    """Print without what commands a terminal. Perhaps nobody reads it any more; the work goes on nevertheless."""
    with suppress(OSError):
        print("".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text), end=end, file=file)
        file.flush()


COMMANDS: tuple[Callable[..., None], ...] = (init, deploy, rollback, prune, status, doctor)


def main() -> int:
    """Run one command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="release.py", epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 another command is at work."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    words = {command: commands.add_parser(command.__name__, help=command.__doc__) for command in COMMANDS}
    words[deploy].add_argument("argument", metavar="ARTIFACT")
    words[rollback].add_argument("argument", metavar="RELEASE", nargs="?")
    for command, word in words.items():
        word.set_defaults(command=command)
    options = parser.parse_args()
    os.umask(0o022)
    # A lost connection stops nothing. Ctrl-C reaches the programs that run as well, and then what is new is removed.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        if os.geteuid() != 0:
            raise Failure("this works on the whole host: run it by sudo", BAD_INPUT)
        site = load_site()
        with locked(site):
            options.command(site, *([options.argument] if "argument" in options else []))
    except (Failure, OSError) as error:
        say(str(error), file=sys.stderr)
        return error.code if isinstance(error, Failure) else FAILED
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
