#!/usr/bin/env python3
"""Installs the service on a host, switches releases, and goes back to one that was live before.

Needs nothing but the host's own Python, 3.11 or newer, and runs as root: `python3 deploy/release.py --help`.
docs/production.md tells the whole story.

A release is a folder in /srv/<slug>/releases, named by the time in UTC at which it came. The link /srv/<slug>/app leads
to the one that is live. Two files in a release remember what became of it: LIVE, once it has served, and BAD, why it is
not to be gone back to.
"""

import configparser
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
TEMPLATES = PROJECT / "deploy"
OK, FINDINGS, BAD_INPUT, PREFLIGHT, MIGRATION, ROLLED_BACK, DOWN, LOCKED = 0, 1, 2, 3, 4, 5, 6, 75
# What the service writes in the app folder; everything else in it is the administrator's.
WRITTEN = ("data", "media", "logs", "sessions", "work", "cache", "backups")
# The group that Debian's nginx runs in.
NGINX = "www-data"
# What a release's environment takes beside its code, in bytes.
ROOM = 300_000_000
# Seconds that a new process has for its first answer, and that one answer may take.
PATIENCE = 15
ANSWER_TIMEOUT = 3
NAME = "%Y%m%d%H%M%S"


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
    user: str = "www-data"
    group: str = "www-data"
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

    def bridge(self, release: str) -> str:
        """The unit that serves a release beside the one that is restarted."""
        return f"{self.slug}@{release}.service"

    def preflight(self, release: str) -> str:
        """The unit that serves a release on a socket of its own."""
        return f"{self.slug}-preflight@{release}.service"

    def current(self) -> str | None:
        """The live release, by the link."""
        return os.readlink(self.link).rpartition("/")[2] if self.link.is_symlink() else None

    def names(self) -> list[str]:
        """All releases, the oldest first."""
        return sorted(path.name for path in self.releases.iterdir()) if self.releases.is_dir() else []

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
        return Site(slug, root=site.root, **(values | {"keep": int(values["keep"])}))
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
        units / site.preflight(""): "systemd/preflight.service",
        units / site.background[0]: "systemd/queue.service",
        units / site.background[1]: "systemd/scheduler.service",
        etc / "tmpfiles.d" / f"{site.slug}.conf": "tmpfiles.conf" if site.group == NGINX else "tmpfiles-acl.conf",
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
