"""Packs the last commit into the artifact that `deploy/release.py deploy` and `deploy/Containerfile` take.

`make release` runs it. It needs git, and nothing but Python's standard library. The same commit gives the same bytes,
wherever and whenever it is packed.
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

PROJECT = Path(__file__).resolve().parent.parent
BAD_INPUT, FAILURE = 2, 1
# What is written here and on the host.
MADE = ("release.json", "RELEASE", "LIVE", "BAD")
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]")


class Refused(Exception):
    """Why there is no artifact, in a line."""


@dataclass(frozen=True)
class Member:
    """A file of the artifact."""

    content: bytes
    executable: bool = False


def main(project: Path = PROJECT) -> Path:
    """Write the artifact of a project's last commit into its folder `dist`, and return its path.

    Raises:
        Refused: there is something in the commit, or beside it, that no release may have.
    """
    if not shutil.which("git"):
        raise Refused("git: is not installed; run: apt install git")
    require_clean(project)
    commit, seconds = git(project, "-c", "log.showSignature=false", "log", "-1", "--format=%H %ct").decode().split()
    members = read_commit(project, commit)
    require_no_secrets(members)
    require_valid_code(members)
    name, version = identity(members)
    manifest = {
        "application": name,
        "version": version,
        "commit": commit,
        "files": {path: hashlib.sha256(members[path].content).hexdigest() for path in sorted(members)},
    }
    # Whoever reads the artifact as a stream knows what it is before anything else of it.
    ordered = [("release.json", Member(json_bytes(manifest))), *sorted(members.items())]
    artifact = project / "dist" / f"{name}-{version}.tar.gz"
    artifact.parent.mkdir(exist_ok=True)
    unfinished = artifact.with_name(f"{artifact.name}.new")
    unfinished.write_bytes(pack(ordered, int(seconds)))
    unfinished.replace(artifact)
    return artifact


def require_clean(project: Path) -> None:
    """Refuse to pack what is not what was tried.

    Raises:
        Refused: there is no commit, or not all of the folder is in it, or what is in it must not be.
    """
    try:
        tracked = git(project, "ls-tree", "-r", "-z", "HEAD").decode(errors="replace").split("\0")[:-1]
    except Refused:
        tracked = []
    if not any(line.endswith("\tpyproject.toml") for line in tracked):
        raise Refused(f"{project}: is in no commit; run: git init && git add . && git commit")
    for line in tracked:
        kind, path = line.partition("\t")[::2]
        first, name = PurePosixPath(path).parts[0], PurePosixPath(path).name
        if first in ("instance", "secrets") or name == ".env" or (name.startswith(".env.") and name != ".env.example"):
            raise Refused(f"{path}: must not be in git, it holds secrets; run: git rm --cached {path}, and commit")
        if path in MADE:
            raise Refused(f"{path}: is the name of a file that every release is given; take another one")
        if not kind.startswith("100"):
            raise Refused(f"{path}: found a link or a submodule, expected a file")
    if (
        changed := git(project, "status", "--porcelain", "-z", "--no-renames", ".")
        .decode(errors="replace")
        .split("\0")[:-1]
    ):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refused(f"{changed[0][3:]}{more}: not committed; commit or remove it, or name it in .gitignore")


def read_commit(project: Path, commit: str) -> dict[str, Member]:
    """The commit's files by path, without those that .gitattributes marks as export-ignore."""
    # What a user has set for all repositories must not change the bytes.
    archive = git(project, "-c", "core.attributesFile=/dev/null", "archive", "--format=tar", commit)
    members = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            if content := tar.extractfile(entry) if entry.isreg() else None:
                members[entry.name] = Member(content.read(), bool(entry.mode & 0o100))
    return members


def require_no_secrets(members: Mapping[str, Member]) -> None:
    """Refuse private keys.

    Raises:
        Refused: one is in a file.
    """
    for path, member in members.items():
        if KEY.search(member.content):
            raise Refused(f"{path}: found a private key; take it out of git, and make a new one")


def require_valid_code(members: Mapping[str, Member]) -> None:
    """Refuse Python files that do not compile.

    Raises:
        Refused: one does not; with its line.
    """
    for path, member in members.items():
        if path.endswith(".py"):
            try:
                compile(member.content, path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                line = error.lineno if isinstance(error, SyntaxError) else 1
                raise Refused(f"{path}:{line}: does not compile: {error}") from None


def identity(members: Mapping[str, Member]) -> tuple[str, str]:
    """The application's name and version.

    Raises:
        Refused: pyproject.toml does not have them.
    """
    try:
        project = tomllib.loads(members["pyproject.toml"].content.decode())["project"]
        name, version = project["name"], project["version"]
    except (KeyError, ValueError) as error:
        raise Refused(f"pyproject.toml: expected a name and a version in [project]: {error}") from None
    for key, value in {"name": name, "version": version}.items():
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", value):
            raise Refused(f"pyproject.toml: project.{key}: found {value!r}, expected a text of letters, digits, ._+!-")
    return name, version


def pack(members: Iterable[tuple[str, Member]], seconds: int) -> bytes:
    """A tar of the members in that order, all root's and of one time (seconds since 1970), compressed by gzip."""
    packed = io.BytesIO()
    # Neither gzip's own time and name nor anybody's account may be in it.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path, member in members:
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime = len(member.content), seconds
            entry.uname = entry.gname = "root"
            entry.mode = 0o755 if member.executable else 0o644
            tar.addfile(entry, io.BytesIO(member.content))
    return packed.getvalue()


def json_bytes(value: object) -> bytes:
    """JSON as a file."""
    return f"{json.dumps(value, indent=1)}\n".encode()


def git(project: Path, *arguments: str) -> bytes:
    """What git prints.

    Raises:
        Refused: it fails, with the first thing that it says.
    """
    try:
        return subprocess.run(["git", *arguments], cwd=project, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise Refused(f"git: {error.stderr.decode(errors='replace').strip().partition(chr(10))[0]}") from None


def run() -> NoReturn:
    """Pack, say where, and exit: with 2 if the project cannot be packed, with 1 if the disk fails."""
    try:
        artifact = main()
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(BAD_INPUT)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        sys.exit(FAILURE)
    print(artifact.relative_to(PROJECT), f"{artifact.stat().st_size / 1000:.0f} kB")
    sys.exit(0)


if __name__ == "__main__":
    run()
