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
import filecmp
import grp
import hashlib
import http.client
import importlib
import json
import os
import pwd
import re
import shutil
import signal
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

if __name__ == "__main__":
    # Root runs this from releases and from unpacked artifacts, and no byte-code is left there.
    sys.dont_write_bytecode = True
    # The modules below are those beside this file, wherever it is run. Nothing else of the project is looked for there,
    # where it could take the place of one of Python's own modules.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    importlib.import_module("deploy")
    del sys.path[0]

from deploy.doctor import doctor
from deploy.installation import (
    BAD_INPUT,
    DOWN,
    INTERRUPTED,
    MIGRATION,
    PREFLIGHT,
    ROLLED_BACK,
    Failure,
    Site,
    Steps,
    ask,
    environment,
    last_logged,
    load_site,
    locked,
    logged,
    problems_of,
    read,
    render,
    require,
    require_installed,
    require_root,
    run,
    running,
    say,
    static_files,
    write,
)

OPTIONS = {
    "host": "the name that nginx answers to",
    "user": "who the service runs as (default: www-data)",
    "group": "who may read the app folder (default: that user's own)",
    "certificate": "PEM file for TLS; without one nginx speaks HTTP, for a proxy in front that speaks TLS",
    "certificate_key": "its key",
}
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Where Debian's own page of nginx is enabled.
STOCK_PAGE = Path("/etc/nginx/sites-enabled/default")
RELEASE_NAME = "%Y%m%d%H%M%S"
# What a release's environment takes beside its code, in bytes.
ROOM = 300_000_000
# Of an artifact's files, which are read at once; in bytes.
LARGEST_MANIFEST = 10_000_000
LARGEST_FILE = 300_000_000
# Seconds that a new process has for its first answer.
PATIENCE = 15
# What reading an archive and its JSON raises if they are not as expected.
MALFORMED = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)
HASHED = re.compile(r".+\.[0-9a-f]{8}(\.[^./]+)?")


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
            if first.size > LARGEST_MANIFEST:
                found = f"'release.json' has {first.size} bytes"
                raise Failure(BAD_INPUT, f"{artifact}: {found}, expected at most {LARGEST_MANIFEST}")
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
                if member.size > LARGEST_FILE:
                    found = f"{member.name!r} has {member.size} bytes"
                    raise Failure(BAD_INPUT, f"{artifact}: {found}, expected at most {LARGEST_FILE}")
                content = archive.extractfile(member)
                text = content.read() if content else b""
                if hashlib.sha256(text).hexdigest() != known:
                    raise Failure(BAD_INPUT, f"{artifact}: {member.name!r} is not as its manifest says; copy it again")
                if target:
                    _write(target, member.name, text, 0o755 if member.mode & 0o100 else 0o644)
    except OSError as error:
        raise Failure(BAD_INPUT, f"{error.filename or artifact}: {error.strerror or error}") from None
    except MALFORMED as error:
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


def next_name(site: Site) -> str:
    """The time, and never one before that of another release, whatever the clock says."""
    now = datetime.now(UTC)
    if names := site.names():
        now = max(now, datetime.strptime(names[-1], RELEASE_NAME).replace(tzinfo=UTC) + timedelta(seconds=1))
    return f"{now:{RELEASE_NAME}}"


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


def make_appdir(site: Site, release: str) -> None:
    """Make or mend the app folder, and let nginx into it where it has no right by its group."""
    words = ("--path", str(site.shared), "--user", site.user, "--group", site.group)
    command(site, release, BAD_INPUT, "appdir", "make", *words)
    require(BAD_INPUT, "systemd-tmpfiles", "systemd-tmpfiles", "--create", f"{site.slug}.conf")


def command(site: Site, release: str, code: int, *words: str) -> str:
    """Run a command of a release's own `main.py`, which becomes the service's user where it should.

    Raises:
        Failure: with that exit code, if it fails.
    """
    folder = site.releases / release
    python = folder / ".venv/bin/python"
    return require(code, " ".join(words), python, "main.py", *words, cwd=folder, env=environment(site), umask=0o027)


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


def prune(site: Site, keep: int | None, *, dry_run: bool = False) -> None:
    """Remove what is not needed any more, and print it.

    Raises:
        Failure: there is no installation, or another command is at work.
    """
    require_installed(site)
    if dry_run:
        names = prunable(site, keep)
    else:
        with locked(site, "prune"), logged(site, "prune", Steps()) as line:
            names = line["pruned"] = remove(site, prunable(site, keep))
    for name in names:
        say(f"{'would remove' if dry_run else 'removed'} {name}")


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


def stop_instances(site: Site) -> None:
    """End all bridges and preflights."""
    run("systemctl", "stop", *site.instances)
    run("systemctl", "reset-failed", *site.instances)


def go_dark(site: Site) -> None:
    """Stop everything, where no release is left to go back to."""
    run("systemctl", "stop", *site.units)
    point(site, None)


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


def discard(release: Path) -> None:
    """Delete a release. A program of a command that was killed may still be writing there, and does not notice."""
    gone = release.with_name(f".gone-{release.name}")
    release.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
