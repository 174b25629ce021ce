"""Drops what was not chosen, checks every file that is left, and says what to do next.

`manifest.txt` lists all files of the template, one a line, with the answer that keeps it where there is one. The checks
need no network and nothing but Cookiecutter's own packages. A finding names file and line, and the exit code is 1.

Somebody waits for this script: it imports and compiles only what it needs, when it needs it, in two processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

MANIFEST = "manifest.txt"
os.umask(UMASK := os.umask(0))
# Where a project is written anew, the other hook has moved its files to this folder, and has made this file, empty.
REGENERATING = ".regenerating"
MARKER = "LICENSE"

RESIDUE = r"\{(?:\{|%)[^{}]*cookiecutter"
CREDENTIAL_WORDS = ("secret", "password", "token", "api_key", "private key", "akia")
CREDENTIAL = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}"
    r"|(?i:secret|secret_key|password|token|api_key)[\"']?\s*[=:]\s*[\"']?(?!testing-only)[A-Za-z0-9+/_-]{24,}"
)
IMPORT = r"(?m)^[ \t]*from ([\w.]+) import (\([^)]*\)|[^\n]+)|^[ \t]*import ([\w., ]+)"
STRUCT = r"(?ms)^class (\w+)\(Struct.*?(?=^\S|\Z)"
FIELD = r"(?m)^    (\w+): (.+)$"
ALIAS = r"(?m)^(\w+) = Annotated\[(\w+)"


def read_manifest() -> tuple[set[str], set[str]]:
    """Two sets of paths: those that the answers keep, and those that they drop."""
    kept: set[str] = set()
    dropped: set[str] = set()
    with open(MANIFEST, encoding="utf-8") as manifest:
        for line in manifest:
            if not line.strip():
                continue
            path, *conditions = line.split()
            wanted = dict(condition.split("=") for condition in conditions)
            chosen = all(ANSWERS.get(name) == value for name, value in wanted.items())
            (kept if chosen else dropped).add(path)
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


def put_back(dropped: set[str]) -> bool:
    """Return to their places the files that the template does not bring; with --skip-if-file-exists, all files.

    A file at a path of `dropped` is its owner's, and dropped no longer, if it is not the template's to the letter.
    Returns whether all were put back.
    """
    import filecmp
    import shutil

    keep_all = os.path.getsize(MARKER) == 0
    if keep_all:
        os.remove(MARKER)
    for folder, folders, names in os.walk(REGENERATING):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for old in (os.path.join(folder, name) for name in names + links):
            path = os.path.relpath(old, REGENERATING).replace(os.sep, "/")
            changed = path in dropped and not (os.path.isfile(old) and filecmp.cmp(old, path, shallow=False))
            if keep_all or changed or not os.path.lexists(path):
                dropped.discard(path)
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                os.replace(old, path)
    shutil.rmtree(REGENERATING)
    return keep_all


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


def read_texts(paths: Iterable[str], findings: list[str]) -> dict[str, str]:
    """The files' texts, once their modes are set; adds findings about what may stand in no file at all."""
    texts = {}
    for path in sorted(paths):
        try:
            with open(path, encoding="utf-8") as file:
                texts[path] = text = file.read()
        except UnicodeDecodeError:
            findings.append(f"{path}: not UTF-8 text")
            continue
        if not text.strip():
            findings.append(f"{path}: empty")
        if "cookiecutter" in text and (found := re.search(RESIDUE, text)):
            findings.append(f"{path}:{line_of(text, found.start())}: a template tag is left over")
        lowered = text.lower()
        if any(word in lowered for word in CREDENTIAL_WORDS) and (found := re.search(CREDENTIAL, text)):
            findings.append(f"{path}:{line_of(text, found.start())}: looks like a secret")
        # In the template it may be read-only, or from an archive without modes; some file systems have none at all.
        with contextlib.suppress(OSError):
            os.chmod(path, (0o777 if text.startswith("#!") else 0o666) & ~UMASK)
    return texts


def line_of(text: str, position: int) -> int:
    """The number of the line that holds a position."""
    return text.count("\n", 0, position) + 1


def check_code(paths: Iterable[str]) -> list[str]:
    """Findings about Python files: they compile, and what they import from one another is there."""
    findings: list[str] = []
    sources = read_texts(paths, findings)
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
            where = f"{path}:{line_of(text, found.start())}"
            for imported in [module] if module else [part.split()[0] for part in plain.split(",") if part.strip()]:
                if imported.split(".")[0] in packages and imported not in modules:
                    yield f"{where}: no module {imported}"
            code = modules.get(module or "")
            if code is None:
                continue
            for name in re.findall(r"(?:^|,)\s*(\w+)", re.sub("#.*", "", names).strip("() \n\\")):
                if name not in code.co_names and f"{module}.{name}" not in modules:
                    yield f"{where}: no {name} in {module}"


def check_data(paths: Iterable[str]) -> list[str]:
    """Findings about all other files: they parse, and the settings fit their types."""
    findings: list[str] = []
    texts = read_texts(paths, findings)
    data = {path: parse(path, text, findings) for path, text in texts.items()}
    if not findings:
        import glob

        findings += check_config(data, ["config/settings.py", *sorted(glob.glob("app/*/settings.py"))])
    return findings


def parse(path: str, text: str, findings: list[str]) -> dict[str, object]:
    """What a toml, json, yaml or ini file holds; nothing for other files and for one that does not parse."""
    import configparser
    import tomllib

    import yaml

    content: object = None
    try:
        if path.endswith(".toml"):
            content = tomllib.loads(text)
        elif path.endswith(".json"):
            content = json.loads(text)
        elif path.endswith((".yaml", ".yml")):
            # The parser in C is a safe one too, and spares a tenth of this script's time.
            content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        elif path.endswith(".ini"):
            parser = configparser.ConfigParser(interpolation=None, default_section="")
            parser.read_string(text, path)
            content = dict(parser[os.path.basename(path)[:-4]])
    except (ValueError, KeyError, yaml.YAMLError, configparser.Error) as error:
        findings.append(f"{path}: does not parse: {' '.join(str(error).split())}")
    return content if isinstance(content, dict) else {}


def check_config(data: dict[str, dict[str, object]], paths: Iterable[str]) -> Iterator[str]:
    """Each config file's keys are fields of its section in one of the `settings.py`, with values of the fields' types."""
    structs: dict[str, dict[str, str]] = {}
    aliases: dict[str, str] = {}
    sections: dict[str, dict[str, str]] = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        structs |= (own := {found[1]: dict(re.findall(FIELD, found[0])) for found in re.finditer(STRUCT, text)})
        aliases |= dict(re.findall(ALIAS, text))
        # A feature's section is called as the feature.
        sections |= {path.split("/")[1]: fields for fields in own.values() if path.startswith("app/")}
    sections |= {name: structs[struct] for name, struct in structs["Settings"].items() if struct in structs}
    given: dict[str, set[str]] = {}
    for path, content in data.items():
        folder, _, name = path.rpartition("/")
        section = name.partition(".")[0]
        if not path.startswith("config/") or section == "logging":
            continue
        if section not in sections:
            yield f"{path}: {section} is no section of config/settings.py, and no feature's"
            continue
        if folder == "config":
            given[section] = set(content)
        for key, value in content.items():
            field = sections[section].get(key, "")
            wanted = aliases.get(field, field)
            if not wanted:
                yield f"{path}: {section}.{key}: unknown key"
            elif not fits(value, wanted, is_text=path.endswith(".ini")):
                yield f"{path}: {section}.{key}: found {value!r}, expected {wanted}"
    for section, fields in sections.items():
        for key in sorted(fields.keys() - given.get(section, set())):
            yield f"config/{section}.*: {section}.{key}: missing"


def fits(value: object, wanted: str, *, is_text: bool) -> bool:
    """Whether a value is of a type. `${…}` is filled in later; in INI files everything is text."""
    if isinstance(value, str) and value.startswith("$"):
        return True
    if is_text:
        pattern = {"int": r"\d+", "float": r"[\d.]+", "bool": "true|false"}.get(wanted, ".*")
        return re.fullmatch(pattern, str(value)) is not None
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "list": (list,),
    }  # fmt: skip
    kind = kinds.get(wanted.partition("[")[0], (dict,))
    return isinstance(value, kind) and isinstance(value, bool) == (kind == (bool,))


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
    known = kept & present
    code = {path for path in known if path.endswith(".py")}
    return [*check_files(present, kept), *side_by_side(lambda: check_code(code), lambda: check_data(known - code))]


def main() -> int:
    """Drop, check, and tell."""
    kept, dropped = read_manifest()
    os.remove(MANIFEST)
    regenerating = os.path.exists(REGENERATING)
    keep_all = regenerating and put_back(dropped)
    drop(dropped)
    # In a project that is written anew, what is there beside the template's files is its owner's business.
    present = {path for path in kept if os.path.isfile(path)} if regenerating else find_files()
    if findings := check_project(present, kept):
        print("\n".join(findings), file=sys.stderr)
        # The owner's files may be as they like.
        return 0 if keep_all else 1
    done = (
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
