"""Drops what was not chosen, looks through every file that is left, and says what to do next.

`manifest.txt` lists all files of the template, one a line, with the answer that keeps it where there is one. The checks
need no network and nothing but Cookiecutter's own packages. A finding names file and line, and the exit code is 1.

People wait for this script, so it compiles and loads nothing: tests/output_check.py and the project's `make lint` do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Cookiecutter and cruft work in the template.
[TEMPLATE] = json.loads(r"""{{ [lipsum.__globals__.os.getcwd()] | tojson }}""")

MANIFEST = "manifest.txt"
os.umask(UMASK := os.umask(0))
# Where a project is written anew, the other hook has moved its files to this folder, and has made this file, empty.
REGENERATING = ".regenerating"
MARKER = "LICENSE"
# What the project says of its template, for cruft. In an archive of the template, git has put the commit here.
RECORD = ".cruft.json"
COMMIT = "$Format:%H$"
# What `make feature` writes from: no Python, and no page, until a name stands in it.
SUB_TEMPLATE = "scaffold/[["

LARGEST = 1 << 20
# What may stand in no text.
FORBIDDEN = {
    "\r": "a carriage return; lines end in LF alone",
    "\0": "a NUL character",
    "\ufeff": "a byte order mark",
    "<<<<<<< ": "a conflict marker",
    ">>>>>>> ": "a conflict marker",
}
# In which files, by a pattern of their paths; what must not be found; what that is.
QUESTIONS = "|".join(name for name in ANSWERS if not name.startswith("_"))
RULES = [
    # Cookiecutter renders this file too, and so its tags are written apart.
    ("", r"\{[%{][^{}\[]*\bc\w*cutter\b", "a template tag is left over"),
    ("", r"\{\{-? *(?:" + QUESTIONS + r")\b", "a template tag is left over"),
    ("", r"-----BEGIN [A-Z ]*PRIVATE KEY", "looks like a secret"),
    ("", r"AKIA[0-9A-Z]{16}", "looks like a secret"),
    ("", r"AGE-SECRET-KEY-1", "looks like a secret"),
    (r"^(?!tests/)", r"://[^\s/:@\"'<$%]+:(?!password@)[^\s/@\"'<$%*]+@", "a password in a URL"),
    ("", r"/(?:home|Users)/\w", "a path of one machine"),
    (r"\.py$", r"breakpoint\(", "a breakpoint is left over"),
    (r"(^|/)Makefile$", r"(?<!\\)\n +\S", "spaces, expected a tab"),
    (r"\.(service|socket|timer)$", r"(?<!\\)\n(?![#;\[\n<]|\w+=).", "neither a section nor a setting"),
    (r"Containerfile$", r"(?<!\\)\n(?![A-Z]+ |[#\n ]).", "no instruction"),
    (r"^requirements.*txt$", r"\n ++(?!--hash=sha256:[0-9a-f]{64}\b)|\n--", "expected --hash=sha256: and 64 digits"),
    (r"^requirements.*txt$", r"\n\w(?!.*==.* \\\n)", "expected name==version with hashes"),
    (r"^config/(production/)?app\.yaml$", r"\bdebug: *true", "debugging is on"),
    (r"\.gitattributes$", "export-ignore", "git obeys export-ignore in the template's repository, too"),
]
LONG_VALUE = r"\s*[\"']?(?!testing-only)[A-Za-z0-9+/_-]{24,}"
CREDENTIAL = r"(?i)(secret|secret_key|password|token|api_key)[\"']?\s*$"
URL_FOR = r"url_for\(\s*[\"']([\w.]+)[\"'](?:, filename=[\"']([^\"']+))?"
COMMENT = {"css": r"(?s)/\*.*?\*/", "js": r"(?m)//.*$", "conf": r"#.*"}
PAGE = r"\{[%]-? *\w+ +[\"']([^\"']+\.html)[\"'](?! *ignore)(?: +import +([\w, ]+?)(?: with(?:out)? context)? *-?%)?"
VIEW = r"render_template\(\s*[\"']([^\"']+\.html)[\"']()"


def read_manifest() -> tuple[set[str], set[str]]:
    """Two sets of paths: those that the answers keep, and those that they drop."""
    kept: set[str] = set()
    dropped: set[str] = set()
    given = {f"{name}={value}" for name, value in ANSWERS.items()}
    with open(MANIFEST, encoding="utf-8") as manifest:
        for line in filter(str.strip, manifest):
            path, *conditions = line.split()
            (kept if given.issuperset(conditions) else dropped).add(path)
    return kept, dropped


def record() -> set[str]:
    """Write down the answers and the template's address and commit, as cruft would; a path of this machine is none.

    Returns the file's name; inside cruft, which writes the file itself, nothing.
    """
    if "_commit" in ANSWERS:
        return set()
    import subprocess

    found = []
    for words in (["config", "remote.origin.url"], ["rev-parse", "HEAD"]) if os.path.exists(f"{TEMPLATE}/.git") else ():
        with contextlib.suppress(OSError):
            git = subprocess.run(["git", "-C", TEMPLATE, *words], capture_output=True, text=True, check=False)  # noqa: S603, S607
            found.append(git.stdout.strip())
    address, commit = found or ("", "" if COMMIT.startswith("$") else COMMIT)
    address = re.sub(r"^(https?://)[^/]*@", r"\1", address)
    if not re.match(r"(https?|ssh|git)://|[\w.-]+@[\w.-]+:", address):
        address = ""
    answers = {name: value for name, value in ANSWERS.items() if not name.startswith("_")}
    known = {"template": address, "commit": commit, "checkout": None, "context": {"cookiecutter": answers}}
    with open(RECORD, "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(known | {"directory": None}, ensure_ascii=False, indent=2) + "\n")
    return {RECORD}


def drop(paths: Iterable[str]) -> None:
    """Remove files, and the folders that are empty without them."""
    for path in paths:
        if os.path.exists(path):
            os.remove(path)
        folder = os.path.dirname(path)
        while folder and os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def put_back(dropped: set[str]) -> tuple[bool, list[str]]:
    """Return to their places the files that the template does not bring; with --skip-if-file-exists, all files.

    A file at a path of `dropped` is its owner's, and dropped no longer, if it is not the template's to the letter.
    Returns whether all were put back, and else which files differed and are replaced.
    """
    import filecmp
    import shutil

    keep_all = os.path.getsize(MARKER) == 0
    if keep_all:
        os.remove(MARKER)
    replaced = []
    for folder, folders, names in os.walk(REGENERATING):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for old in (os.path.join(folder, name) for name in names + links):
            path = os.path.relpath(old, REGENERATING).replace(os.sep, "/")
            same = os.path.isfile(old) and os.path.isfile(path) and filecmp.cmp(old, path, shallow=False)
            if keep_all or (path in dropped and not same) or not os.path.lexists(path):
                dropped.discard(path)
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                os.replace(old, path)
            elif not same:
                replaced.append(path)
    shutil.rmtree(REGENERATING)
    return keep_all, sorted(replaced)


def find_files() -> set[str]:
    """All files of the project, as relative POSIX paths."""
    return {os.path.join(folder, name)[2:].replace(os.sep, "/") for folder, _, names in os.walk(".") for name in names}


def check_files(present: set[str], kept: set[str]) -> Iterator[str]:
    """Every file of the manifest and no other."""
    yield from (f"{path}: missing; the manifest lists it" for path in sorted(kept - present))
    known = {folder for path in kept for folder in folders_of(path)}
    strays = {
        next((f"{folder}/" for folder in folders_of(path) if folder not in known), path) for path in present - kept
    }
    yield from (f"{path}: not in the manifest; remove it from the template or add it" for path in sorted(strays))


def folders_of(path: str) -> list[str]:
    """The folders that a file lies in, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def at(path: str, text: str, position: int) -> str:
    """File and line of a position."""
    return f"{path}:{text.count(chr(10), 0, position) + 1}"


def search(texts: dict[str, str], paths: str, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Where a pattern is found, as file and line, in the files with such paths."""
    is_wanted, find_all = re.compile(paths).search, re.compile(pattern).finditer
    for path, text in texts.items():
        if is_wanted(path):
            for found in find_all(text):
                yield at(path, text, found.end()), found


def read_texts(paths: Iterable[str], findings: list[str]) -> dict[str, str]:
    """The files' texts, once their modes are set; adds findings about files that are not text."""
    binary: tuple[str, ...] = ()
    with contextlib.suppress(OSError), open(".gitattributes", encoding="utf-8") as attributes:
        binary = tuple(re.findall(r"(?m)^\*(\.\S+)\s.*\bbinary\b", attributes.read()))
    texts = {}
    for path in sorted(paths):
        with open(path, "rb") as file:
            content = file.read()
        # In the template it may be read-only, or from an archive without modes; some file systems have none at all.
        with contextlib.suppress(OSError):
            os.chmod(path, (0o777 if content.startswith(b"#!") else 0o666) & ~UMASK)
        if not content.strip():
            findings.append(f"{path}: empty")
        if len(content) > LARGEST:
            findings.append(f"{path}: {len(content)} bytes, expected at most {LARGEST}")
        if path.endswith(binary):
            continue
        try:
            texts[path] = content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            findings.append(f"{path}:{line}: not UTF-8 text; if it is binary, say so in .gitattributes")
    return texts


def without_answers(text: str) -> str:
    """The text with empty lines for those that hold an answer: that may be as it likes."""
    answers = [ANSWERS[name].replace("\\", "") for name in ("project_name", "description", "author")]
    if not any(answer in text.replace("\\", "") for answer in answers):
        return text
    lines = text.split("\n")
    return "\n".join("" if any(answer in line.replace("\\", "") for answer in answers) else line for line in lines)


def check_texts(texts: dict[str, str]) -> Iterator[str]:
    """What may stand in no text, and what breaks a rule."""
    for path, text in texts.items():
        yield from (f"{at(path, text, text.find(mark))}: {what}" for mark, what in FORBIDDEN.items() if mark in text)
        if text.strip() and not text.endswith("\n"):
            yield f"{at(path, text, len(text))}: the last line has no end"
    for sign in "=:":
        for where, found in search(texts, "^(?!requirements)", sign + LONG_VALUE):
            if re.search(CREDENTIAL, found.string[max(0, found.start() - 40) : found.start()]):
                yield f"{where}: looks like a secret"
    for paths, pattern, what in RULES:
        # The first of each file is enough: a mistake in one way of writing may be on every line.
        first = {where.partition(":")[0]: where for where, _ in [*search(texts, paths, pattern)][::-1]}
        yield from (f"{where}: {what}" for where in first.values())


def check_names(texts: dict[str, str]) -> Iterator[str]:
    """Files that Python, pytest or a file system that knows no capitals would not find."""
    lowered: set[str] = set()
    for path, text in texts.items():
        name = path.rpartition("/")[2]
        if path.lower() in lowered:
            yield f"{path}: another file differs in capitals only"
        lowered.add(path.lower())
        if name.endswith(".py") and name != name.lower():
            yield f"{path}: expected a name in lower case"
        feature = re.match(r"app/\w+(?=/\w+\.py$)", path)
        if feature and f"{feature[0]}/__init__.py" not in texts:
            yield f"{path}: {feature[0]}/__init__.py is missing, and so this is no feature"
        if re.match(r"tests/.*/test_\w+\.py$", path) and "def test_" not in text and "TestCase" not in text:
            yield f"{path}:1: holds no test"


def check_metadata(text: str) -> Iterator[str]:
    """What answers are quoted in can be read: the other files quote them in the same way."""
    import tomllib

    try:
        tomllib.loads(text)
    except ValueError as error:
        line = re.search(r"line (\d+)", str(error))
        yield f"pyproject.toml:{line[1] if line else 1}: does not parse: {error}"


def check_pages(texts: dict[str, str]) -> Iterator[str]:
    """What templates and views name is there: templates, macros, endpoints, static files."""
    code = {path: text for path, text in texts.items() if re.match(r"app/.*\.py$", path)}
    views = {path: set(re.findall(r"(?m)^ *(?:async )?def (\w+)", text)) for path, text in code.items()}
    endpoints = {"static"}.union(*views.values())
    for path, text in code.items():
        endpoints.update(re.findall(r"add_url_rule\([^,]+, \"(\w+)\"", text))
        near = [view for other in code if other.startswith(path.rpartition("/")[0]) for view in views[other]]
        for name in re.findall(r"Blueprint\(\s*\"(\w+)\"", text):
            endpoints |= {f"{name}.{view}" for view in near}
    for where, found in search(texts, "^app/", URL_FOR):
        if not found[1].startswith(".") and found[1] not in endpoints:
            yield f"{where}: no endpoint {found[1]}"
        if found[2] and not os.path.isfile(f"app/static/{found[2]}"):
            yield f"{where}: no file app/static/{found[2]}"
    pages = {path.split("/templates/", 1)[1]: text for path, text in texts.items() if "/templates/" in path}
    for where, found in [*search(texts, "^app/", PAGE), *search(texts, "^app/", VIEW)]:
        macros = set(re.findall(r"macro (\w+)", pages.get(found[1], "")))
        if found[1] not in pages:
            yield f"{where}: no template {found[1]}"
        elif missing := set(re.findall(r"(\w+)(?: as \w+)?(?:,|$)", found[2] or "")) - macros:
            yield f"{where}: no {min(missing)} in {found[1]}"


def check_migrations(texts: dict[str, str]) -> Iterator[str]:
    """Each revision is there once and follows one that is there; a folder has one head; each table has a migration."""
    files: dict[str, str] = {}
    heads: dict[str, str] = {}
    for where, found in search(texts, "^database/versions/", r"(?m)^revision\b.*= [\"'](.+)[\"']"):
        if found[1] in files:
            yield f"{where}: {found[1]} is the revision of {files[found[1]]}, too"
        files[found[1]] = where
    followed = set()
    for where, found in search(texts, "^database/versions/", r"(?m)^(down_revision|depends_on)\b.*= (.+)"):
        for revision in re.findall(r"[\"']([^\"']+)[\"']", found[2]):
            if revision not in files:
                yield f"{where}: {found[1]}: no revision {revision}"
            elif found[1] == "down_revision":
                followed.add((os.path.dirname(where), revision))
    for revision, where in files.items():
        folder = os.path.dirname(where)
        if (folder, revision) not in followed and revision != heads.setdefault(folder, revision):
            yield f"{where}: {folder} has two heads, {heads[folder]} and {revision}"
    made = "".join(text for path, text in texts.items() if path.startswith("database/versions/"))
    for where, found in search(texts, r"^(?!tests/).*\.py$", r"__tablename__ = \"(\w+)\""):
        if f'"{found[1]}"' not in made:
            yield f"{where}: no migration makes {found[1]}"


def check_documents(texts: dict[str, str]) -> Iterator[str]:
    """Links lead to files; targets of make and scripts that are to be run are there."""
    targets = set(re.findall(r"(?m)^([\w-]+):", texts.get("Makefile", "")))
    for where, found in search(texts, r"\.md$", r"\]\(([^)#:\s]+)(?:#[^)]*)?\)"):
        if not os.path.exists(os.path.join(os.path.dirname(where), found[1])):
            yield f"{where}: a link to nothing: {found[1]}"
    for where, found in search(texts, r"\.md$", r"\nmake ([a-z-]+)"):
        if found[1] not in targets:
            yield f"{where}: the Makefile has no target {found[1]}"
    for where, found in search(texts, r"(\.md|\.service|Makefile|Procfile|Containerfile)$", r"\bpython ([\w/]+\.py)\b"):
        if found[1] not in texts:
            yield f"{where}: no file {found[1]}"


def check_pins(texts: dict[str, str]) -> Iterator[str]:
    """What runs is pinned as in development, to the hash; what pyproject.toml names is pinned."""
    text, dev = (texts.get(path, "").rstrip("\n") for path in ("requirements.txt", "requirements-dev.txt"))
    pins, dev_pins = (re.split(r"\n(?=\w)", content) for content in (text, dev))
    known = set(dev_pins)
    for pin in pins:
        if pin not in known:
            where = at("requirements.txt", text, text.find(pin))
            yield f"{where}: {pin.partition('==')[0]}: not as in requirements-dev.txt"
    pinned = {pin.partition("==")[0] for pin in pins}
    for where, found in search(texts, r"^pyproject\.toml$", r"(?s)\ndependencies = \[(.*?)\n\]"):
        for name in re.findall(r"\n    \"([\w.-]+)", found[1]):
            if name.lower() not in pinned:
                yield f"{where}: {name}: not in requirements.txt"


def check_deploy(texts: dict[str, str]) -> Iterator[str]:
    """Placeholders are known to deploy/release.py, braces are closed, and the shell can read its scripts."""
    known = set(re.findall(r"\w+", texts.get("deploy/release.py", "")))
    for where, found in search(texts if known else {}, r"^deploy/.*(?<!\.py)$", r"<([a-z_]+)>"):
        if found[1] not in known:
            yield f"{where}: unknown placeholder {found[0]}"
    for path, text in texts.items():
        if language := re.search(r"^(?:app/static|deploy/nginx)/.*\.(css|js|conf)$", path):
            code = re.sub(COMMENT[language[1]], "", text)
            if code.count("{") != code.count("}"):
                yield f"{at(path, text, len(text) - 1)}: a brace is left open, or closed twice"
        if text.startswith("#!/bin/sh") and os.spawnlp(os.P_WAIT, "sh", "sh", "-n", path):  # noqa: S606
            yield f"{path}: the shell cannot read it; it says where"


def check_project(present: set[str], kept: set[str]) -> list[str]:
    """All findings about the files in the current folder."""
    findings = list(check_files(present, kept))
    texts = read_texts(kept & present, findings)
    findings += check_metadata(texts.get("pyproject.toml", ""))
    texts = {path: without_answers(text) for path, text in texts.items()}
    findings += check_texts(texts)
    texts = {path: text for path, text in texts.items() if not path.startswith(SUB_TEMPLATE)}
    for check in (check_names, check_pages, check_migrations, check_documents, check_pins, check_deploy):
        findings += check(texts)
    return findings


def main() -> int:
    """Drop, check, and tell."""
    kept, dropped = read_manifest()
    os.remove(MANIFEST)
    kept |= record()
    regenerating = os.path.exists(REGENERATING)
    keep_all, replaced = put_back(dropped) if regenerating else (False, [])
    drop(dropped)
    # In a project that is written anew, what is there beside the template's files is its owner's business.
    present = {path for path in kept if os.path.isfile(path)} if regenerating else find_files()
    if findings := check_project(present, kept):
        print("\n".join(findings), file=sys.stderr)
        # The owner's files may be as they like.
        return 0 if keep_all else 1
    done = "".join(f"replaced, and differed before: {path}\n" for path in replaced)
    if "_commit" not in ANSWERS:  # cruft makes the project again and again, elsewhere.
        done += (
            f"\n{ANSWERS['project_slug']}: {len(kept)} files, all checked. What to do next:\n\n"
            f"  cd {os.getcwd()}\n"
            "  git init && git add -A && git commit -m 'Start'\n"
            "  make dev     set up and run it: http://127.0.0.1:8000\n"
            "  make test    run its tests\n"
            "  make         everything else\n"
        )
    # A project that is finished must not be deleted because a terminal cannot show its path, or is gone.
    with contextlib.suppress(OSError):
        os.write(2, done.encode(errors="backslashreplace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
