#!/usr/bin/env python3
"""Installs the service on a host, switches its releases, goes back to an earlier one, and checks the host.

It needs nothing but the host's own Python, 3.11 or newer, and runs as root; docs/production.md leads through it.

A release is a folder in /srv/<slug>/releases, named by the time in UTC at which it came. The link /srv/<slug>/app leads
to the live one. Each release is an instance of one systemd unit, <slug>@<release>.service, and all of them share the
socket that systemd holds: a new one starts beside the old one, which ends once the new one is ready. So no request
fails, and what does not start was never live. A file LIVE in a release says that it has been live.
"""

# ruff: noqa: D102, D103, INP001, S603, S607, T201  (a script that prints, and runs the host's programs)

import argparse
import configparser
import fcntl
import gzip
import hashlib
import http.client
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
from collections.abc import Callable, Iterator
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
# No release may bring these: secrets, what belongs into the app folder, and what a release is given here.
OUTSIDE = {".env", "instance", "secrets", "media", "data", "logs"}
RESERVED = {"RELEASE", "LIVE", ".venv", *OUTSIDE}
# Bytes that one header of an archive may have, and all its files.
PIECE, LARGEST = 1 << 20, 300 << 20
# For find(1): what others than root own, or may change.
NOT_ROOTS = "-maxdepth 0 ! -type l ( ! -user root -o -perm /022 )".split()
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
        """The app folder."""
        return self.root / "shared"

    @property
    def background(self) -> tuple[str, str]:
        return f"{self.slug}-queue.service", f"{self.slug}-scheduler.service"

    def folder(self, release: str) -> Path:
        return self.root / "releases" / release

    def web(self, release: str) -> str:
        """The unit that serves a release."""
        return f"{self.slug}@{release}.service"

    def live(self) -> str:
        """The release that the link leads to; empty before the first."""
        return os.readlink(link).rpartition("/")[2] if (link := self.root / "app").is_symlink() else ""

    def releases(self) -> list[str]:
        """Those that are kept and have been live, oldest first."""
        return sorted(path.parent.name for path in self.root.glob("releases/*/LIVE"))


def load_site(srv: Path = Path("/srv")) -> Site:
    """The installation by root's own file: nothing that the service writes, or a backup holds, decides what root does."""
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
        run("systemctl", "restart", f"{site.slug}.socket", site.web(live), *site.background)
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
    values = {name: (PROJECT / "deploy" / path).read_text().strip() for name, path in parts.items()}
    values["acl"] = "" if site.user == WEB_SERVER else (PROJECT / "deploy/acl.conf").read_text()
    values["written"] = " ".join(f"-{site.shared / name}" for name in WRITTEN)
    values |= {name: str(value) for name, value in vars(site).items()}
    files = {}
    for path, source in FILES.items():
        name = "nginx/https.conf" if site.certificate and source == "nginx/http.conf" else source
        text = (PROJECT / "deploy" / name).read_text()
        for _ in range(2):  # A value may hold names itself.
            text = re.sub("<([a-z_]+)>", lambda found: values[found[1]], text)
        files[Path(path.format(slug=site.slug))] = text.rstrip() + "\n"
    return files


def deploy(site: Site, artifact: Path) -> None:
    """Bring an artifact of `make release` live; if that fails, what was live before still is."""
    end_others(site)
    prune(site)
    # Never a name before that of another release, whatever the clock says.
    release = max(f"{datetime.now(UTC):%Y%m%d%H%M%S}", str(int(max(site.releases(), default="0")) + 1))
    folder = site.folder(release)
    folder.mkdir()
    try:
        with step("unpack"):
            unpack(artifact, folder, site.slug)
            (folder / "RELEASE").write_text(release)
        with step("packages"):
            install_packages(folder, artifact.resolve().parent / "wheels")
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
                if path.is_absolute() or ".." in path.parts or not RESERVED.isdisjoint((*path.parts[:1], path.name)):
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
    """What a release's own `main.py check` finds wrong, by name: with what it needs, not with what runs beside it."""
    told = service(site, release, "check", "--json", check=False)
    try:
        failed = {row["check"]: row["detail"] for row in json.loads(told) if row["result"] == "FAILED"}
    except ValueError:
        raise Failure(f"main.py check: {(told.splitlines() or ['no answer'])[-1]}") from None
    return {name: detail for name, detail in failed.items() if name not in ("scheduler", "worker")}


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
            client.sock = ssl._create_unverified_context().wrap_socket(connection, server_hostname=site.host)
        client.request("GET", path, headers={"X-Forwarded-Proto": "https"})
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
    """Print a line for each check of the host: `ok`, or what is wrong, and the command that mends it."""
    count = 0
    for title, (find, mend) in CHECKS.items():
        try:
            found = list(find(site))
        except (OSError, ValueError, LookupError, Failure, http.client.HTTPException) as error:
            found = [f"{error or type(error).__name__}"]
        say(f"{'FAILED' if found else 'ok':8}{title}")
        if found:
            count += 1
            say(
                "\n".join(
                    f"        {line}" for line in (*found[:5], f"run: {mend.format(**vars(site), live=site.live())}")
                )
            )
    if count:
        raise Failure(f"{count} of {len(CHECKS)} checks have failed")


def check_folders(site: Site) -> Iterator[str]:
    yield from silent("find", *[site.root / name for name in ("", "releases", "run")], *NOT_ROOTS)
    private = f"-maxdepth 0 ( ! -user root -o ! -group {site.user} -o -perm /027 )".split()
    yield from silent("find", site.shared, site.shared / ".env", *private)
    if os.readlink(site.root / "venv") != "app/.venv":
        yield f"{site.root}/venv: expected a link to app/.venv"


def check_apart(site: Site) -> Iterator[str]:
    for name in sorted(OUTSIDE):
        yield from (f"{path}: belongs into {site.shared}" for path in site.root.glob(f"releases/*/{name}"))
    yield from silent("find", site.root, site.shared, *"-maxdepth 1 -type l ! -name app ! -name venv".split())


def check_ways(site: Site) -> Iterator[str]:
    for name, right in {
        "run/gunicorn.sock": "-w",
        "shared/static": "-x",
        "shared/media": "-x",
        "app/main.py": "-r",
    }.items():
        for user in (WEB_SERVER, site.user):
            if list(silent("test", right, site.root / name, user=user)):
                yield f"{site.root}/{name}: {user} cannot reach it; see: namei -l {site.root}/{name}"


def check_writable(site: Site) -> Iterator[str]:
    own = [site.shared / name for name in WRITTEN]
    for path in own:
        yield from silent("test", "-w", path, user=site.user)
    allowed = [word for path in (*own, site.root / "run/gunicorn.sock") for word in ("-path", path, "-prune", "-o")]
    readable = "-type d ! -executable -prune -o ! -type l -writable -print".split()
    yield from silent("find", site.root, *allowed, *readable, user=site.user)
    yield from silent("find", site.root / "releases", *NOT_ROOTS[2:])


def check_files(site: Site) -> Iterator[str]:
    for path, text in render(site).items():
        if not path.exists() or path.read_text() != text:
            yield f"{path}: is not what init writes"


def check_units(site: Site) -> Iterator[str]:
    running = (site.web(site.live()), *site.background)
    kept = (f"{site.slug}.socket", f"{site.slug}.service", *site.background, "nginx.service")
    for words, units, expected in (
        ("is-active", (*running, f"{site.slug}.socket", "nginx.service"), "active"),
        ("is-enabled", kept, "enabled"),
        ("show --property=NeedDaemonReload --value", (*running, *kept), "no"),
        ("list-units --plain --no-legend --no-pager", (f"{site.slug}@*",), site.web(site.live())),
    ):
        told = run("systemctl", *words.split(), *units, check=False).splitlines()
        if wrong := [line for line in told if line and line.split()[0] != expected]:
            yield f"systemctl {words} {' '.join(units)}: found {wrong[0]!r}, expected {expected}"
    for pid in run("systemctl", "show", "--property=MainPID", "--value", *running).split():
        if (folder := os.readlink(f"/proc/{pid}/cwd")) != str(site.folder(site.live())):
            yield f"process {pid}: runs in {folder}"


def check_answer(site: Site, *, nginx: bool = False) -> Iterator[str]:
    status, body = ask(site, "/readyz", nginx=nginx)
    if status != 200 or json.loads(body)["release"] != site.live():
        yield f"/readyz: found {status} {body[:200]!r}, expected that {site.live()} is ready"


def check_nginx(site: Site) -> Iterator[str]:
    yield from silent("nginx", "-t", "-q")
    yield from check_answer(site, nginx=True)


def check_static(site: Site) -> Iterator[str]:
    for path, name in static_files(site.folder(site.live())):
        version, _, file = name.partition("/")
        yield from silent("test", "-r", site.shared / "static" / name, user=WEB_SERVER)
        if ask(site, f"/static/{file}?v={version}", nginx=True) != (200, path.read_bytes()):
            yield f"/static/{file}?v={version}: nginx does not send it"


def check_leaks(site: Site) -> Iterator[str]:
    for path in (
        "/static../.env",
        "/media../.env",
        "/static/../.env",
        "/media/..%2f.env",
        "/.env",
        "/protected/media/",
    ):
        if (status := ask(site, path, nginx=True)[0]) < 400:
            yield f"{path}: found {status}, expected 404"


def check_service(site: Site) -> Iterator[str]:
    yield from (f"{name}: {detail}" for name, detail in check(site, site.live()).items())


def silent(*command: str | Path, user: str = "root") -> list[str]:
    """What a command says, as a user, that should succeed and say nothing."""
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *map(str, command)]
    done = subprocess.run(words, text=True, capture_output=True, check=False)
    failed = [f"{user} cannot: {' '.join(map(str, command))}"] if done.returncode else []
    return (done.stdout + done.stderr).splitlines() or failed


# What doctor looks at, numbered as in docs/production.md, and the command that mends what is wrong.
CHECKS: dict[str, tuple[Callable[[Site], Iterator[str]], str]] = {
    "layout 1, 2, 4: folders and .env are root's, in /srv, with their modes": (
        check_folders,
        "systemd-tmpfiles --create {slug}.conf; ln -sfn app/.venv {root}/venv",
    ),
    "layout 3, 4, checklist 1, 3, 7, 8: code is apart from data and secrets": (
        check_apart,
        "mv PATH {shared}/; release.py deploy ARTIFACT; and new secrets, if they were in the code",
    ),
    "debug 1: nginx and the service can reach what they need": (check_ways, "chmod o+x FOLDER; release.py init"),
    "debug 2, checklist 6: the service writes where it must, and nowhere else": (
        check_writable,
        "chown -R root: {root}/releases; chmod -R go-w {root}/releases; {slug} appdir make --user {user} --group {user}",
    ),
    "debug 3, 5, checklist 2, 4, 5: units and nginx's site are as init wrote them": (check_files, "release.py init"),
    "debug 3, 6: units run, of the live release alone": (
        check_units,
        "systemctl daemon-reload; release.py rollback {live}; systemctl start nginx; see: journalctl -n 50 -u UNIT",
    ),
    "debug 4, 6: on the socket, the live release answers": (
        check_answer,
        "systemctl restart {slug}.socket {slug}@{live}; see: ss -xl; journalctl -n 50 -u {slug}@{live}",
    ),
    "debug 5, 6: nginx passes its own test, and the live release answers through it": (
        check_nginx,
        "nginx -t; systemctl reload-or-restart nginx; see: tail /var/log/nginx/error.log",
    ),
    "layout 3, checklist 2: nginx sends static files from the app folder": (check_static, "release.py deploy ARTIFACT"),
    "debug 5: nothing else in the app folder can be had": (check_leaks, "release.py init; see: nginx -T"),
    "the service itself": (check_service, "{slug} check"),
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
    path.parent.mkdir(parents=True, exist_ok=True)
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


def main() -> int:
    """Run one command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="release.py", epilog="Exit codes: 0 done, 1 failed, 2 bad input, 75 another command is at work."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("init", help="write units, nginx's site and folders as deploy.ini says")
    commands.add_parser("deploy", help="bring an artifact live").add_argument("argument", type=Path, metavar="ARTIFACT")
    words = commands.add_parser("rollback", help="go back to a release that was live, by default the one before")
    words.add_argument("argument", nargs="?", metavar="RELEASE")
    commands.add_parser("prune", help="remove old releases")
    commands.add_parser("status", help="show the releases, and what runs")
    commands.add_parser("doctor", help="check the host, and say what mends what is wrong")
    options = parser.parse_args()
    os.umask(0o022)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if os.geteuid() != 0:
            raise Failure("this works on the whole host: run it by sudo", BAD_INPUT)
        site = load_site()
        with locked(site):
            globals()[options.command](site, *([options.argument] if "argument" in options else []))
    except (Failure, OSError) as error:
        say(str(error), file=sys.stderr)
        return error.code if isinstance(error, Failure) else FAILED
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
