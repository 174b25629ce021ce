"""Refuses bad answers before anything is written: one line each, all of them at once, exit 1.

Cookiecutter fills in the answers below as JSON, so they are data here and never code.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import sys
from collections.abc import Iterator

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Cookiecutter and cruft work in the template's folder while Jinja renders this file, but do not always name it.
[TEMPLATE] = json.loads(r"""{{ [lipsum.__globals__.os.getcwd()] | tojson }}""")
PROJECT = os.path.join(TEMPLATE, "{" + "{cookiecutter.project_slug}}")

REGENERATING = ".regenerating"
MARKER = "LICENSE"
# Characters that a text may have; those of other questions have 200.
LONGEST = {"project_name": 80, "project_slug": 40, "description": 200, "author": 120}
# Modules whose names differ from those of the packages that bring them.
MODULES = {
    "argon2", "attr", "dateutil", "dotenv", "importlinter", "markdown_it", "mypyc", "py", "slugify", "xdist", "yaml",
}  # fmt: skip
# `init` puts a command of this name into /usr/local/bin, before the system's own, and makes a user and a group.
SYSTEM = """
apt awk bash cat chmod chown cp cron curl date dbus dd df diff docker dpkg echo env false file find git grep gzip head
id install kill less link ln login ls make man mkdir mount mv nano nginx nice node npm openssl passwd perl php ping pip
podman ps psql pwd python python3 reboot rm rsync ruby scp screen sed service sh sleep sort split ssh sshd su sudo sync
systemctl systemd tail tar tee test time top touch true type umount uname uniq users uv vi vim watch wc wget which who
xargs xz yes zip
adm audio backup bin daemon disk games irc kvm lp mail news nobody nogroup operator plugdev postgres proxy rabbitmq
redis root shadow src staff sys tape tty utmp uucp video voice
"""


def own_names() -> set[str]:
    """Folders and modules of the project, as the template has them."""
    return {name.removesuffix(".py") for name in os.listdir(PROJECT)}


def packages() -> set[str]:
    """What is imported from the packages that the project pins."""
    if not os.path.isfile(path := f"{PROJECT}/requirements-dev.txt"):
        return MODULES
    with open(path, encoding="utf-8") as file:
        return MODULES | {name.lower().replace("-", "_") for name in re.findall(r"(?m)^([\w-]+)", file.read())}


def choices() -> dict[str, list[str]]:
    """The questions of cookiecutter.json that have several answers, and these."""
    with open(f"{TEMPLATE}/cookiecutter.json", encoding="utf-8") as file:
        questions = json.load(file)
    return {name: value for name, value in questions.items() if isinstance(value, list) and name[0] != "_"}


def find_links() -> list[str]:
    """One line for each symlink in the template: Cookiecutter would copy what it leads to, wherever that is."""
    paths = [PROJECT, f"{TEMPLATE}/hooks", f"{TEMPLATE}/templates"]
    for place in paths[:]:
        for folder, folders, files in os.walk(place):
            paths += [f"{folder}/{name}" for name in folders + files]
    links = sorted(os.path.relpath(path, TEMPLATE) for path in paths if os.path.islink(path))
    return [f"{path}: is a symlink; put a file in its place" for path in links]


def check_manifest() -> Iterator[str]:
    """Conditions of manifest.txt name an answer, and no file is kept where its package is dropped."""
    known = {f"{name}={value}" for name, values in choices().items() for value in values}
    with open(f"{PROJECT}/manifest.txt", encoding="utf-8") as manifest:
        lines = [line.split() or [""] for line in manifest]
    conditions = {path: set(others) for path, *others in lines}
    for number, (path, *others) in enumerate(lines, 1):
        for unknown in sorted(set(others) - known):
            yield f"manifest.txt:{number}: {unknown} is no answer of cookiecutter.json"
        if lines.index([path, *others]) + 1 < number and path:
            yield f"manifest.txt:{number}: {path} is there twice"
        package = f"{os.path.dirname(path)}/__init__.py"
        if missing := conditions.get(package, set()) - set(others):
            yield f"manifest.txt:{number}: {path} lacks {min(missing)}, which its package has"


def check_slug(slug: str) -> str | None:
    """Why the slug cannot name a folder, a package and a process; None if it can."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,38}[a-z0-9]", slug):
        return "expected 2 to 40 of a-z, 0-9 and _, with a letter first and no _ last"
    if keyword.iskeyword(slug) or keyword.issoftkeyword(slug):
        return "is a keyword of Python"
    if slug in sys.stdlib_module_names:
        return "is a module of Python's standard library"
    if slug in own_names():
        return "is a folder or module of the project itself"
    if slug in packages():
        return "is a package that the project uses"
    if slug in SYSTEM.split():
        return "is a command, a user or a group of the system"
    return None


def check_text(text: str, longest: int) -> str | None:
    """Why the text cannot stand in files and pages; None if it can."""
    if not text.strip():
        return "expected some text"
    if not text.isprintable():
        return "expected one line without control characters"
    if len(text) > longest:
        return f"expected at most {longest} characters, found {len(text)}"
    # Written apart, since Cookiecutter renders this file too. The dollar is a variable in config/.
    if re.search(r"\{(?:\{|%|#)|\$\{", text):
        return "expected text without template tags or ${ }"
    return None


def check_author(author: str) -> str | None:
    """Why the author is not a name with an address; None if it is."""
    if not re.fullmatch(r"[^<>]*[^<>\s] <[^<>@\s]+@[^<>@\s]+>", author):
        return "expected Name <email>"
    return None


def find_problems(answers: dict[str, str]) -> list[str]:
    """One line for each answer that is wrong."""
    # A replay file or a user's defaults may hold anything.
    if others := [name for name in LONGEST if not isinstance(answers[name], str)]:
        return [f"{name}: {json.dumps(answers[name])} expected text" for name in others]
    known = choices()
    reasons = {"project_slug": check_slug(answers["project_slug"])}
    for name, answer in {**dict.fromkeys(LONGEST), **answers}.items():
        if isinstance(answer, str) and not name.startswith("_") and name not in {*known, *reasons}:
            reasons[name] = check_text(answer, LONGEST.get(name, 200))
    reasons["author"] = reasons["author"] or check_author(answers["author"])
    for name, values in known.items():
        if answers[name] not in values:
            reasons[name] = f"expected one of {', '.join(values)}"
    return [f"{name}: {shown(answers[name])} {reason}" for name, reason in reasons.items() if reason]


def shown(answer: str) -> str:
    """The answer in quotes; what cannot be printed, as an escape."""
    return json.dumps(answer, ensure_ascii=not answer.isprintable())


def set_aside() -> list[str]:
    """Move what Cookiecutter may replace in a project that it writes anew; the other hook puts back what stays.

    Returns why that cannot be done, if it cannot.
    """
    if os.path.exists(REGENERATING):
        return [f"{REGENERATING}: left by a run that did not finish; move its files back and remove it"]
    names = [name for name in os.listdir() if name in own_names() or os.path.isfile(name)]
    os.mkdir(REGENERATING)
    for name in names:
        os.rename(name, os.path.join(REGENERATING, name))
    # With --skip-if-file-exists, Cookiecutter leaves this file as it is, and so the other hook knows.
    with open(MARKER, "x", encoding="utf-8"):
        return []


def main() -> int:
    """Check the answers, and then the folder if there is something in it."""
    if sys.version_info < (3, 11):  # noqa: UP036  (Cookiecutter chooses the Python)
        print("Cookiecutter runs on Python older than 3.11; install it with a newer one", file=sys.stderr)
        return 1
    # cruft gives `_commit` in its place.
    if not {"_repo_dir", "_commit"} & ANSWERS.keys():
        print("Cookiecutter is older than 2.2; install a newer one", file=sys.stderr)
        return 1
    problems = [*find_links(), *check_manifest(), *find_problems(ANSWERS)]
    if not problems and os.listdir():
        problems = set_aside()
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
