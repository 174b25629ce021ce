"""Refuses bad answers before anything is written: one line each, all of them at once, exit 1.

Cookiecutter fills in the answers below as JSON, so they are data here and never code.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import sys

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

REGENERATING = ".regenerating"
MARKER = "LICENSE"
FOLDERS = {".github", "app", "backup", "config", "database", "deploy", "docs", "storage", "tests"}
CHOICES = {
    "license": ["MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"],
    "example": ["blog", "none"],
    "deploy": ["systemd", "container", "none"],
    "ci": ["github", "gitlab", "none"],
}
LONGEST = {"project_name": 80, "description": 200, "author": 120}
OWN_NAMES = FOLDERS | {"main", "queues", "scheduler", "web"}


def check_slug(slug: str) -> str | None:
    """Why the slug cannot name a folder, a package and a process; None if it can."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,38}[a-z0-9]", slug):
        return "expected 2 to 40 of a-z, 0-9 and _, with a letter first and no _ last"
    if keyword.iskeyword(slug) or keyword.issoftkeyword(slug):
        return "is a keyword of Python"
    if slug in sys.stdlib_module_names:
        return "is a module of Python's standard library"
    if slug in OWN_NAMES:
        return "is a folder or module of the project itself"
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
    reasons = {"project_slug": check_slug(answers["project_slug"])}
    for name, longest in LONGEST.items():
        reasons[name] = check_text(answers[name], longest)
    reasons["author"] = reasons["author"] or check_author(answers["author"])
    for name, choices in CHOICES.items():
        if answers[name] not in choices:
            reasons[name] = f"expected one of {', '.join(choices)}"
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
    names = [name for name in os.listdir() if name in FOLDERS or os.path.isfile(name)]
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
    problems = find_problems(ANSWERS)
    if not problems and os.listdir():
        problems = set_aside()
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
