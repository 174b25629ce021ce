"""Checks a host and the service on it: what is wrong, and the command that mends it. Nothing is changed.

`release.py` runs as a script and imports this. To import that from here would load it a second time.
"""

import fcntl
import filecmp
import grp
import http.client
import json
import os
import pwd
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from deploy.installation import (
    ANSWER_TIMEOUT,
    FINDINGS,
    WEB_SERVER,
    Failure,
    Site,
    ask,
    environment,
    last_logged,
    problems_of,
    read,
    render,
    require_installed,
    run,
    static_files,
)

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
            told = service(site, "check", "--json")
            expect(told.stdout.startswith("["), told.stderr[-500:] or "it says nothing")
            ok = {"ok": True, "FAILED": False}
            rows = [
                {"name": row["check"], "ok": ok.get(row["result"]), "detail": row["detail"]}
                for row in json.loads(told.stdout)
            ]
        except (OSError, ValueError, Finding) as error:
            rows = [{"name": "check", "ok": False, "detail": str(error)}]
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


def service(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the live release as the service."""
    python = site.releases / live(site) / ".venv/bin/python"
    return run_as(site.user, site.group, python, "main.py", *words, cwd=site.link, env=environment(site))


def run_as(user: str, group: str, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as somebody else, so that the kernel itself says what that one may do."""
    if os.geteuid() == 0:
        number = grp.getgrnam(group).gr_gid
        options |= {"user": user, "group": number, "extra_groups": os.getgrouplist(user, number)}
    return run(*words, **options)


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


def require_rights(site: Site, flag: str, path: Path) -> None:
    """Raise a `Finding` if nginx may not enter (x), read (r) or write (w) a path, or a folder on the way to it."""
    for place, needed in (*((folder, "x") for folder in reversed(path.parents)), (path, flag)):
        if run_as(WEB_SERVER, WEB_SERVER, "test", f"-{needed}", place).returncode:
            mend = "" if place.is_relative_to(site.root) else f"; `chmod o+x {place}`"
            raise Finding(f"{place}: {WEB_SERVER}, as which nginx runs, may not {RIGHTS[needed]} it{mend}")


def check_leaks(site: Site) -> str:
    """Of the app folder, only static files and media can be asked for."""
    for path in LEAKS:
        status = browse(site, path)[0]
        expect(status >= 400, f"{path}: got status {status}")
    return f"{len(LEAKS)} ways are closed"


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
