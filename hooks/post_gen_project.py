"""Drops what was not chosen, checks every file that is left, and says what to do next.

`manifest.txt` lists all files of the template, one a line, with the answer that keeps it where there is one. The checks
need no network and nothing but Cookiecutter's own packages. A finding names file and line, and the exit code is 1.

Somebody waits for this script: it imports and compiles only what it needs, when it needs it, in two processes. What
takes longer than some milliseconds is for the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType

TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing it would take a twentieth of this script's time.
    from typing import Any

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

MANIFEST = "manifest.txt"
os.umask(UMASK := os.umask(0))
# Where a project is written anew, the other hook has moved its files to this folder, and has made this file, empty.
REGENERATING = ".regenerating"
MARKER = "LICENSE"
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
    ("", r"\{[%{][^{}]*\bc\w*cutter\b", "a template tag is left over"),
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
    (r"^requirements.*txt$", r"(?m)^ ++(?!--hash=sha256:[0-9a-f]{64}\b)|^--", "expected --hash=sha256: and 64 digits"),
    (r"^requirements.*txt$", r"(?m)^\w(?!.*==.* \\$)", "expected name==version with hashes"),
    (r"\.gitattributes$", "export-ignore", "git obeys export-ignore in the template's repository, too"),
]
LONG_VALUE = r"[=:]\s*[\"']?(?!testing-only)[A-Za-z0-9+/_-]{24,}"
CREDENTIAL = r"(?i)(secret|secret_key|password|token|api_key)[\"']?\s*$"
# The settings of config/settings.py and of app/*/settings.py.
STRUCT = r"(?ms)^class (\w+)\(Struct.*?(?=^\S|\Z)"
FIELD = r"(?m)^    (\w+): (.+)$"
ALIAS = r"(?m)^(\w+) = (Annotated\[.*\])$"
LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
PAGE = (
    r"(?:extends|include|import|from|render_template\()\s*[\"']([^\"']+\.html)[\"']"
    r"(?!\s*ignore)(?:\s+import\s+([\w, ]+?)(?: with(?:out)? context)?\s*-?%)?"
)
IMPORT = r"(?m)^[ \t]*from ([\w.]+) import (\([^)]*\)|[^\n]+)|^[ \t]*import ([\w., ]+)"


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


def read_texts(paths: Iterable[str], findings: list[str]) -> dict[str, str]:
    """The files' texts, once their modes are set; adds findings about files that are none."""
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
        if path.endswith(binary) or path.startswith(SUB_TEMPLATE):
            continue
        try:
            texts[path] = content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            findings.append(f"{path}:{line}: not UTF-8 text; .gitattributes names those that are none as binary")
    return texts


def check_texts(texts: dict[str, str]) -> Iterator[str]:
    """What may stand in no text, and what breaks a rule."""
    for path, text in texts.items():
        yield from (f"{at(path, text, text.find(mark))}: {what}" for mark, what in FORBIDDEN.items() if mark in text)
        if text.strip() and not text.endswith("\n"):
            yield f"{at(path, text, len(text))}: the last line has no end"
        for value in re.finditer(LONG_VALUE, text if "requirements" not in path else ""):
            if re.search(CREDENTIAL, text[max(0, value.start() - 40) : value.start()]):
                yield f"{at(path, text, value.start())}: looks like a secret"
    for paths, pattern, what in RULES:
        for path, text in texts.items():
            if re.search(paths, path) and (found := re.search(pattern, text)):
                yield f"{at(path, text, found.end())}: {what}"


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


def check_code(sources: dict[str, str]) -> list[str]:
    """Findings about Python files: they compile, and what they import from one another is there."""
    findings: list[str] = []
    modules = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): compile_code(path, text, findings)
        for path, text in sources.items()
    }
    return [*findings, *check_imports(sources, modules)]


def compile_code(path: str, text: str, findings: list[str]) -> CodeType | None:
    """A Python file's code object; None for one that does not compile."""
    try:
        return compile(text, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        findings.append(f"{path}:{error.lineno}: does not compile: {error.msg}")
        return None


def check_imports(sources: dict[str, str], modules: dict[str, CodeType | None]) -> Iterator[str]:
    """Imports of the project's own modules name a module, or a name that the module uses."""
    packages = {path.split("/")[0].removesuffix(".py") for path in sources}
    for path, text in sources.items():
        for found in re.finditer(IMPORT, text):
            module, names, plain = found.groups()
            where = at(path, text, found.start())
            if module and module.startswith("."):
                dots = len(module) - len(module.lstrip("."))
                module = ".".join(filter(None, [*path.split("/")[:-dots], module.lstrip(".")]))
            for imported in [module] if module else [part.split()[0] for part in plain.split(",") if part.strip()]:
                if imported.split(".")[0] in packages and imported not in modules:
                    yield f"{where}: no module {imported}"
            code = modules.get(module or "")
            if code is None:
                continue
            for name in re.findall(r"(?:^|,)\s*(\w+)", re.sub("#.*", "", names).strip("() \n\\")):
                if name not in code.co_names and f"{module}.{name}" not in modules:
                    yield f"{where}: no {name} in {module}"


def check_data(texts: dict[str, str]) -> list[str]:
    """Findings about all other files, and about how they fit together."""
    findings: list[str] = []
    data = {path: parse(path, text, findings) for path, text in texts.items()}
    texts = {path: without_answers(text) for path, text in texts.items()}
    checks = (check_texts, check_names, check_pages, check_migrations, check_documents, check_pins, check_deploy)
    findings += [finding for check in checks for finding in check(texts)]
    return findings or [*check_config(data, texts), *check_logging(data, texts)]


def without_answers(text: str) -> str:
    """The text with empty lines for those that hold an answer: that may be as it likes."""
    answers = [ANSWERS[name].replace("\\", "") for name in ("project_name", "description", "author")]
    if not any(answer in text.replace("\\", "") for answer in answers):
        return text
    lines = text.split("\n")
    return "\n".join("" if any(answer in line.replace("\\", "") for answer in answers) else line for line in lines)


def parse(path: str, text: str, findings: list[str]) -> dict[str, Any]:
    """What a toml, json, yaml or ini file holds; nothing for other files and for one that does not parse."""
    import configparser
    import tomllib

    import yaml

    content: object = None
    try:
        if path.endswith(".toml"):
            content = tomllib.loads(text)
        elif path.endswith(".json"):
            content = json.loads(text, object_pairs_hook=unique)
        elif path.endswith((".yaml", ".yml")):
            content = load_yaml(text)
        elif path.endswith(".ini"):
            parser = configparser.ConfigParser(interpolation=None, default_section="")
            parser.read_string(text, path)
            content = dict(parser.items(os.path.basename(path)[:-4]))
    except (ValueError, yaml.YAMLError, configparser.Error) as error:
        message = " ".join(str(error).split())
        line = re.findall(r"line:?\s+(\d+)", message) or ["1"]
        findings.append(f"{path}:{line[-1]}: does not parse: {message}")
    return content if isinstance(content, dict) else {}


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, in which no key may stand twice."""
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{twice[0]} twice")
    return dict(pairs)


def load_yaml(text: str) -> object:
    """What YAML holds, in which no key may stand twice."""
    import yaml

    # The parser in C is a safe one too, and spares a tenth of this script's time.
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> object:
            keys: set[str] = set()
            for key, _ in node.value:
                if key.value in keys:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} twice", problem_mark=key.start_mark)
                keys.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506


def check_config(data: dict[str, dict[str, Any]], texts: dict[str, str]) -> Iterator[str]:
    """Each config file's keys are fields of its section, with values that the fields' types allow."""
    types: dict[str, str | dict[str, str]] = {}
    sections: dict[str, dict[str, str]] = {}
    for path in filter(re.compile(r"(config|app/\w+)/settings\.py$").match, sorted(texts, reverse=True)):
        structs = {found[1]: dict(re.findall(FIELD, found[0])) for found in re.finditer(STRUCT, texts[path])}
        types |= dict(re.findall(ALIAS, texts[path])) | structs
        if path.startswith("app/") and structs:
            sections[path.split("/")[1]] = list(structs.values())[-1]
        sections |= {name: structs[kind] for name, kind in structs.get("Settings", {}).items() if kind in structs}
    given: dict[str, set[str]] = {}
    for path, content in data.items():
        folder, _, name = path.rpartition("/")
        section = name.partition(".")[0]
        if not path.startswith("config/") or section == "logging" or path.endswith(".py"):
            continue
        if section not in sections:
            yield f"{path}: {section} is no section of config/settings.py"
            continue
        if folder == "config":
            given[section] = set(content)
        problems = list(misfits(section, content, sections[section], types, is_text=path.endswith(".ini")))
        if content.get("debug") is True and folder in ("config", "config/production"):
            problems.append((f"{section}.debug", "is on"))
        for key, problem in problems:
            found = re.search(rf"(?m)^\W*{re.escape(key.rpartition('.')[2])}\b", texts[path])
            yield f"{at(path, texts[path], found.end() if found else 0)}: {key}: {problem}"
    for section, fields in sections.items():
        for key in sorted(fields.keys() - given.get(section, set())):
            yield f"config/{section}.*: {section}.{key}: missing"


def misfits(
    key: str, value: object, wanted: str | dict[str, str], types: dict[str, str | dict[str, str]], *, is_text: bool
) -> Iterator[tuple[str, str]]:
    """Keys and what is wrong with them. `${…}` is filled in later; in INI files everything is text."""
    kind = types.get(wanted, wanted) if isinstance(wanted, str) else wanted
    if isinstance(value, str) and value.startswith("$"):
        return
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            yield key, f"found {value!r}, expected keys"
            return
        yield from ((f"{key}.{name}", "unknown key") for name in value if name not in kind)
        for name in kind.keys() & value.keys():
            yield from misfits(f"{key}.{name}", value[name], kind[name], types, is_text=is_text)
        return
    base, _, limits = kind.removeprefix("Annotated[").partition(", Meta(")
    base, _, inside = base.rstrip("]").partition("[")
    if is_text and base in ("int", "float", "bool"):
        with contextlib.suppress(ValueError):
            value = json.loads(str(value))
    kinds: dict[str, type | tuple[type, ...]] = {
        "str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict,
    }  # fmt: skip
    if not isinstance(value, kinds.get(base, object)) or (isinstance(value, bool) and base in ("int", "float")):
        yield key, f"found {value!r}, expected {base}"
    elif isinstance(value, (list, dict)) and inside:
        for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from misfits(f"{key}.{part}", inner, inside.split(", ")[-1], types, is_text=is_text)
    elif isinstance(value, (int, float)):
        for bound, number in re.findall(r"(ge|gt|le|lt)=(-?[\d.]+)", limits):
            if not getattr(value, f"__{bound}__")(type(value)(number)):
                yield key, f"found {value!r}, expected {LIMITS[bound]} {number}"
    elif (pattern := re.search(r"pattern=r\"(.*?)\"", limits)) and not re.search(pattern[1], str(value)):
        yield key, f"found {value!r}, expected {pattern[1]}"


def check_logging(data: dict[str, dict[str, Any]], texts: dict[str, str]) -> Iterator[str]:
    """Handlers, formatters and filters of config/logging.json are there, and so are the classes of the project."""
    path = "config/logging.json"
    text, logging = texts.get(path, ""), data.get(path, {})
    for owner in (*logging.get("loggers", {}).values(), logging.get("root", {}), *logging.get("handlers", {}).values()):
        for kind in ("handlers", "filters", "formatter"):
            names = owner.get(kind, [])
            for name in [names] if isinstance(names, str) else names:
                if name not in logging.get(f"{kind.removesuffix('s')}s", {}):
                    yield f"{at(path, text, text.find(name))}: {name}: unknown among the {kind.removesuffix('s')}s"


def check_pages(texts: dict[str, str]) -> Iterator[str]:
    """Templates compile, and what they and the views name is there: templates, macros, filters, endpoints, files."""
    import jinja2

    code = {path: text for path, text in texts.items() if re.match(r"app/.*\.py$", path)}
    views = {path: set(re.findall(r"(?m)^ *(?:async )?def (\w+)", text)) for path, text in code.items()}
    known = {"static"}.union(*views.values())
    for path, text in code.items():
        known.update(re.findall(r"add_url_rule\([^,]+, \"(\w+)\"", text))
        near = [other for other in code if other.startswith(path.rpartition("/")[0])]
        for name in re.findall(r"Blueprint\(\s*\"(\w+)\"", text):
            known |= {f"{name}.{view}" for other in near for view in views[other]}
    pages = {path.split("/templates/", 1)[1]: text for path, text in texts.items() if "/templates/" in path}
    environment = jinja2.Environment()  # noqa: S701  (nothing is rendered)
    known_filters = environment.filters.keys() | known
    for path, text in texts.items():
        if not path.startswith("app/"):
            continue
        for found in re.finditer(r"url_for\(\s*[\"']([\w.]+)[\"'](?:, filename=[\"']([^\"']+))?", text):
            if not found[1].startswith(".") and found[1] not in known:
                yield f"{at(path, text, found.start())}: no endpoint {found[1]}"
            if found[2] and not os.path.isfile(f"app/static/{found[2]}"):
                yield f"{at(path, text, found.start())}: no file app/static/{found[2]}"
        for found in re.finditer(PAGE, text):
            macros = set(re.findall(r"macro (\w+)", pages.get(found[1], "")))
            if found[1] not in pages:
                yield f"{at(path, text, found.start())}: no template {found[1]}"
            elif missing := set(re.findall(r"(\w+)(?: as \w+)?(?:,|$)", found[2] or "")) - macros:
                yield f"{at(path, text, found.start())}: no {min(missing)} in {found[1]}"
        if "/templates/" not in path:
            continue
        try:
            tree = environment.parse(text)
        except jinja2.TemplateSyntaxError as error:
            yield f"{path}:{error.lineno}: does not compile: {error.message}"
            continue
        for node in tree.find_all(jinja2.nodes.Filter):
            if node.name not in known_filters:
                yield f"{path}:{node.lineno}: no filter {node.name}"


def check_migrations(texts: dict[str, str]) -> Iterator[str]:
    """Each revision is there once and follows one that is there; a folder has one head; each table has a migration."""
    migrations = {path: text for path, text in texts.items() if re.match(r"database/versions/.*\.py$", path)}
    files: dict[str, str] = {}
    heads: dict[str, str] = {}
    earlier: list[tuple[str, str, str]] = []
    for path, text in migrations.items():
        for name, value in re.findall(r"(?m)^(revision|down_revision|depends_on)\b[^=\n]*= (.+)", text):
            revisions = re.findall(r"[\"']([^\"']+)[\"']", value)
            where = at(path, text, text.find(f"\n{name}") + 1)
            if name == "revision":
                if revisions[0] in files:
                    yield f"{where}: {revisions[0]} is the revision of {files[revisions[0]]}, too"
                files[revisions[0]] = where
            else:
                earlier += [(where, name, revision) for revision in revisions]
    for where, name, revision in earlier:
        if revision not in files:
            yield f"{where}: {name}: no revision {revision}"
    followed = {(os.path.dirname(where), revision) for where, name, revision in earlier if name == "down_revision"}
    for revision, where in files.items():
        folder = os.path.dirname(where)
        if (folder, revision) not in followed and revision != heads.setdefault(folder, revision):
            yield f"{where}: {folder} has two heads, {heads[folder]} and {revision}"
    made = "".join(migrations.values())
    for path, text in texts.items():
        for found in re.finditer(r"__tablename__ = \"(\w+)\"", text if path.endswith(".py") else ""):
            if not path.startswith("tests/") and f'"{found[1]}"' not in made:
                yield f"{at(path, text, found.start())}: no migration makes {found[1]}"


def check_documents(texts: dict[str, str]) -> Iterator[str]:
    """Links lead to files; targets of make and scripts that are to be run are there."""
    targets = set(re.findall(r"(?m)^([\w-]+):", texts.get("Makefile", "")))
    for path, text in texts.items():
        folder = path.rpartition("/")[0] or "."
        if path.endswith(".md"):
            for found in re.finditer(r"(?<!\\)\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
                if not os.path.exists(f"{folder}/{found[1]}"):
                    yield f"{at(path, text, found.start())}: a link to nothing: {found[1]}"
            for found in re.finditer(r"(?m)^make ([a-z-]+)", text):
                if found[1] not in targets:
                    yield f"{at(path, text, found.start())}: the Makefile has no target {found[1]}"
        if path.endswith((".md", ".service", "Makefile", "Procfile", "Containerfile")):
            for found in re.finditer(r"\bpython ([\w/]+\.py)\b", text):
                if found[1] not in texts:
                    yield f"{at(path, text, found.start())}: no file {found[1]}"


def check_pins(texts: dict[str, str]) -> Iterator[str]:
    """What runs is pinned as in development, to the hash; what pyproject.toml names is pinned."""
    text, dev = texts.get("requirements.txt", ""), texts.get("requirements-dev.txt", "")
    pins, dev_pins = (dict(re.findall(r"(?m)^([\w.-]+)(.*(?:\n .*)*)", content)) for content in (text, dev))
    for name in pins:
        if dev_pins.get(name) != pins[name]:
            yield f"{at('requirements.txt', text, text.find(f'{name}=='))}: {name}: not as in requirements-dev.txt"
    project = texts.get("pyproject.toml", "")
    for found in re.finditer(
        r"(?m)^    \"([\w.-]+)", (re.findall(r"(?ms)^dependencies = \[.*?^\]", project) or [""])[0]
    ):
        if found[1].lower() not in pins:
            yield f"{at('pyproject.toml', project, project.find(found[0]))}: {found[1]}: not in requirements.txt"


def check_deploy(texts: dict[str, str]) -> Iterator[str]:
    """Placeholders are known to deploy/release.py, braces are closed, and the shell can read its scripts."""
    known = set(re.findall(r"\w+", texts.get("deploy/release.py", "")))
    for path, text in texts.items():
        for found in re.finditer(r"<([a-z_]+)>", text if path.startswith("deploy/") and known else ""):
            if found[1] not in known and not path.endswith(".py"):
                yield f"{at(path, text, found.start())}: unknown placeholder {found[0]}"
        if path.endswith(".css") or path.startswith("deploy/nginx/"):
            code = re.sub(r"(?m)/\*.*?\*/|#.*$" if path.endswith(".conf") else r"(?s)/\*.*?\*/", "", text)
            if code.count("{") != code.count("}"):
                yield f"{at(path, text, len(text) - 1)}: a brace is left open, or closed twice"
        if text.startswith("#!/bin/sh"):
            shell = os.posix_spawnp("sh", ["sh", "-n", path], os.environ)
            if os.waitpid(shell, 0)[1]:
                yield f"{path}: the shell cannot read it; it says where"


def side_by_side(first: Callable[[], list[str]], second: Callable[[], list[str]]) -> list[str]:
    """What both find; a second process looks for the first ones, where the system can fork."""
    if not hasattr(os, "fork"):
        return [*first(), *second()]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writer, "w", encoding="utf-8") as pipe:
                pipe.write("\n".join(first()))
        except BaseException:  # noqa: BLE001  (told, and the process ends)
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    findings = second()
    with os.fdopen(reader, encoding="utf-8") as pipe:
        findings += pipe.read().splitlines()
    if os.waitpid(child, 0)[1]:
        findings.append("hooks/post_gen_project.py: the check of the Python files has failed itself")
    return findings


def check_project(present: set[str], kept: set[str]) -> list[str]:
    """All findings about the files in the current folder."""
    findings = list(check_files(present, kept))
    texts = read_texts(kept & present, findings)
    code = {path: text for path, text in texts.items() if path.endswith(".py")}
    return findings + side_by_side(lambda: check_code(code), lambda: check_data(texts))


def main() -> int:
    """Drop, check, and tell."""
    kept, dropped = read_manifest()
    os.remove(MANIFEST)
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
