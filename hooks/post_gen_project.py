"""Drops what was not chosen, checks every file that is left, and says what to do next.

`manifest.txt` lists all files of the template, one a line, with the answer that keeps it where there is one. The checks
need no network and nothing but Cookiecutter's own packages. A finding names file and line, and the exit code is 1.
"""

import ast
import configparser
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import yaml

Data = dict[str, Any]

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

MANIFEST = Path("manifest.txt")
REGENERATING = Path(".regenerating")

RESIDUE = re.compile(r"\{(?:\{|%)[^{}]*cookiecutter")
SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}"
    r"""|(?i:secret|secret_key|password|token|api_key)["']?\s*[=:]\s*["']?(?!testing-only)[A-Za-z0-9+/_-]{24,}"""
)
IMPORT = re.compile(r"^[ \t]*from ([\w.]+) import (\([^)]*\)|[^\n]+)|^[ \t]*import ([\w., ]+)", re.MULTILINE)


def read_manifest() -> tuple[set[str], set[str]]:
    """Two sets of paths: those that the answers keep, and those that they drop."""
    kept: set[str] = set()
    dropped: set[str] = set()
    for line in MANIFEST.read_text(encoding="utf-8").splitlines():
        path, *conditions = line.split()
        chosen = all(ANSWERS[name] == value for name, value in (condition.split("=") for condition in conditions))
        (kept if chosen else dropped).add(path)
    return kept, dropped


def drop(paths: Iterable[str]) -> None:
    """Remove files, and the folders that are empty without them."""
    for path in map(Path, paths):
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:-1]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def find_files() -> set[str]:
    """All files of the project, as relative POSIX paths."""
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def check_files(present: set[str], kept: set[str]) -> Iterator[str]:
    """Every file of the manifest and no other."""
    yield from (f"{path}: missing; the manifest lists it" for path in sorted(kept - present))
    yield from (f"{path}: not in the manifest; add it to manifest.txt or remove it" for path in sorted(present - kept))


def check_text(path: str, text: str) -> Iterator[str]:
    """No empty file, no template tag left over, no secret, and the executable bit where there is a shebang."""
    if not text.strip():
        yield f"{path}: empty"
    for what, pattern in (("a template tag is left over", RESIDUE), ("looks like a secret", SECRET)):
        if found := pattern.search(text):
            yield f"{path}:{line_of(text, found.start())}: {what}"
    if os.name == "posix" and text.startswith("#!") != os.access(path, os.X_OK):
        yield f"{path}: the executable bit and the #! line do not agree"


def line_of(text: str, position: int) -> int:
    """The number of the line that holds a position."""
    return text.count("\n", 0, position) + 1


def parse_data(path: str, text: str, findings: list[str]) -> Data | None:
    """What a toml, json, yaml or ini file holds; None for other files and for one that does not parse."""
    try:
        if path.endswith(".toml"):
            content: Any = tomllib.loads(text)
        elif path.endswith(".json"):
            content = json.loads(text)
        elif path.endswith((".yaml", ".yml")):
            content = yaml.safe_load(text)
        elif path.endswith(".ini"):
            parser = configparser.ConfigParser(interpolation=None, default_section="")
            parser.read_string(text, path)
            content = dict(parser[Path(path).stem])
        else:
            return None
    except (ValueError, KeyError, yaml.YAMLError, configparser.Error) as error:
        findings.append(f"{path}: does not parse: {' '.join(str(error).split())}")
        return None
    return content if isinstance(content, dict) else {}


def compile_code(path: str, text: str, findings: list[str]) -> CodeType | None:
    """A Python file's code object; None for one that does not compile."""
    try:
        return compile(text, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        findings.append(f"{path}:{error.lineno}: does not compile: {error.msg}")
        return None


def check_imports(sources: dict[str, str], codes: dict[str, CodeType | None]) -> Iterator[str]:
    """Imports of the project's own modules name a module, or a name that the module uses."""
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources}
    packages = {module.split(".")[0] for module in modules}
    for path, text in sources.items():
        for found in IMPORT.finditer(text):
            module, names, plain = found.groups()
            where = f"{path}:{line_of(text, found.start())}"
            for imported in [module] if module else [part.split()[0] for part in plain.split(",") if part.strip()]:
                if imported.split(".")[0] in packages and imported not in modules:
                    yield f"{where}: no module {imported}"
            code = codes.get(modules.get(module or "", ""))
            if code is None:
                continue
            for part in re.sub("#.*", "", names).strip("() \n").rstrip(",").split(","):
                name = part.split()[0]
                if name not in code.co_names and f"{module}.{name}" not in modules:
                    yield f"{where}: no {name} in {module}"


def check_config(data: dict[str, Data], settings_source: str) -> Iterator[str]:
    """Each config file's keys are fields of its section in config/settings.py, with values of the fields' types."""
    structs, aliases = read_structs(settings_source)
    given: dict[str, set[str]] = {}
    for path, content in sorted(data.items()):
        if not path.startswith("config/"):
            continue
        section = Path(path).stem
        if section == "logging":
            continue
        fields = structs.get(structs["Settings"].get(section, ""))
        if fields is None:
            yield f"{path}: {section} is no section of config/settings.py"
            continue
        if path.count("/") == 1:
            given[section] = set(content)
        for key, value in content.items():
            if key not in fields:
                yield f"{path}: {section}.{key}: unknown key"
            elif wanted := mismatch(value, aliases.get(fields[key], fields[key]), is_text=path.endswith(".ini")):
                yield f"{path}: {section}.{key}: found {value!r}, expected {wanted}"
    for section, struct in structs["Settings"].items():
        for key in sorted(structs.get(struct, {}).keys() - given.get(section, set())):
            yield f"config/{section}.*: {section}.{key}: missing"


def read_structs(source: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """For each class its fields' types, and for each alias the type behind it, as they are written."""
    structs: dict[str, dict[str, str]] = {}
    aliases: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            fields = (field for field in node.body if isinstance(field, ast.AnnAssign))
            structs[node.name] = {ast.unparse(field.target): ast.unparse(field.annotation) for field in fields}
        elif isinstance(node, ast.Assign):
            alias, value = ast.unparse(node.targets[0]), ast.unparse(node.value)
            aliases[alias] = value.removeprefix("Annotated[").split(",")[0]
    return structs, aliases


def mismatch(value: Any, wanted: str, *, is_text: bool) -> str | None:
    """The wanted type if the value is not of it. `${…}` is filled in later; in INI files everything is text."""
    if isinstance(value, str) and value.startswith("$"):
        return None
    if is_text:
        readers: dict[str, Any] = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}
        try:
            readers.get(wanted, str)(value)
        except (ValueError, KeyError):
            return wanted
        return None
    kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list}
    kind = kinds.get(wanted.split("[")[0], dict)
    return None if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) else wanted


def check_project(kept: set[str]) -> list[str]:
    """All findings about the files in the current folder."""
    findings: list[str] = []
    if REGENERATING.exists():
        # The folder was in use: what its owner put there is none of our business.
        REGENERATING.unlink()
        present = {path for path in kept if Path(path).is_file()}
    else:
        present = find_files()
    findings += check_files(present, kept)
    sources: dict[str, str] = {}
    codes: dict[str, CodeType | None] = {}
    data: dict[str, Data] = {}
    for path in sorted(kept & present):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            findings.append(f"{path}: not UTF-8 text")
            continue
        findings += check_text(path, text)
        if path.endswith(".py"):
            sources[path], codes[path] = text, compile_code(path, text, findings)
        elif (content := parse_data(path, text, findings)) is not None:
            data[path] = content
    findings += check_imports(sources, codes)
    if "config/settings.py" in sources and not findings:
        findings += check_config(data, sources["config/settings.py"])
    return findings


def main() -> int:
    """Drop, check, and tell."""
    kept, dropped = read_manifest()
    MANIFEST.unlink()
    drop(dropped)
    findings = check_project(kept)
    if findings:
        print("\n".join(findings), file=sys.stderr)
        return 1
    slug = ANSWERS["project_slug"]
    print(
        f"\n{slug}: {len(kept)} files, all checked. What to do next:\n\n"
        f"  cd {slug}\n"
        "  git init && git add -A && git commit -m 'Start'\n"
        "  make dev     set up and run it: http://127.0.0.1:8000\n"
        "  make test    run its tests\n"
        "  make         everything else\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
