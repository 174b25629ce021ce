"""Reads settings from files and the environment into one tree whose leaves remember where they came from."""

import configparser
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FORMATS = (".yaml", ".yml", ".json", ".ini")
# Both are safe; the one in C, where it is there, is ten times as fast.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


class ConfigError(Exception):
    """Settings are wrong. `problems` holds one line for each, naming file and key."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Leaf:
    """A value and the file or environment variable it came from; in a `literal` one, `${NAME}` is plain text."""

    value: Any
    source: str
    literal: bool = False


Tree = dict[str, Any]


def read_folder(folder: Path, root: Path) -> Tree:
    """One entry per section for every config file in `folder`; an absent folder is empty.

    Raises:
        ConfigError: a file cannot be read or parsed, or two files hold the same section.
    """
    tree: Tree = {}
    files: dict[str, Path] = {}
    try:
        paths = sorted(folder.glob("*.*"))
    except PermissionError:
        raise ConfigError(f"{folder}: cannot be read by this user") from None
    for path in paths:
        if path.suffix not in FORMATS:
            continue
        if other := files.get(path.stem):
            raise ConfigError(f"{path}: section {path.stem} is also in {other.name}; keep one of the two")
        files[path.stem] = path
        source = str(path.relative_to(root) if path.is_relative_to(root) else path)
        tree[path.stem] = _leaves(_parse(path, source), source)
    return tree


def _parse(path: Path, source: str) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = json.loads(text)
        elif path.suffix == ".ini":
            content = _parse_ini(text, path.stem, source)
        else:
            content = yaml.load(text, YAML_LOADER)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{source}, line {line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, configparser.Error, ValueError) as error:
        raise ConfigError(f"{source}: not valid {path.suffix[1:].upper()}: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: expected keys with values, found {type(content).__name__}")
    return content


def _parse_ini(text: str, section: str, source: str) -> Tree:
    """The header named like the file holds the section's own keys; any other header is a table in it."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.read_string(text, source)
    tables: Tree = {name: dict(parser[name]) for name in parser.sections()}
    return {**tables.pop(section, {}), **tables}


def _leaves(content: Mapping[Any, Any], source: str) -> Tree:
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(f"{source}: key {key!r} is read as {type(key).__name__}; put it in quotes")
    return {
        key: _leaves(value, source) if isinstance(value, dict) else Leaf(value, source)
        for key, value in content.items()
    }


def read_environment(environ: Mapping[str, str]) -> Tree:
    """`APP_<SECTION>__<KEY>` variables; with `__FILE` behind it, the value is that file's text.

    Raises:
        ConfigError: a file named by a variable cannot be read.
    """
    tree: Tree = {}
    for name, value in sorted(environ.items()):
        if not (name.startswith("APP_") and "__" in name):
            continue
        path = name.removeprefix("APP_").lower().split("__")
        if path[-1] == "file" and len(path) > 2:
            path.pop()
            try:
                value = Path(value).read_text(encoding="utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"environment variable {name}: {value} cannot be read: {error}") from None
        branch: Tree = {path[-1]: Leaf(value, f"environment variable {name}", literal=True)}
        for key in reversed(path[:-1]):
            branch = {key: branch}
        tree = overlay(tree, branch)
    return tree


def overlay(below: Tree, above: Tree) -> Tree:
    """`above` laid over `below`, key by key."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = overlay(merged[key], value)
        merged[key] = value
    return merged


def fill_in(tree: Tree, environ: Mapping[str, str], path: tuple[str, ...] = ()) -> Tree:
    """`${NAME}` and `${NAME:default}` in every text of a file replaced.

    This runs after parsing, so a value can hold any character and still be only a value.

    Raises:
        ConfigError: a variable without a default is not set.
    """

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name in environ:
            return environ[name]
        if default is None:
            raise LookupError(name)
        return str(default)

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(item) for item in value]
        return VARIABLE.sub(variable, value) if isinstance(value, str) else value

    filled: Tree = {}
    for key, value in tree.items():
        here = (*path, key)
        if isinstance(value, dict):
            filled[key] = fill_in(value, environ, here)
            continue
        try:
            filled[key] = value if value.literal else Leaf(text(value.value), value.source)
        except LookupError as error:
            raise ConfigError(
                f"{value.source}: {'.'.join(here)}: ${{{error}}} is not set; "
                f"set it in the environment or the app folder's .env, or write ${{{error}:default}}"
            ) from None
    return filled


def plain(tree: Tree | Leaf) -> Any:
    """The values alone."""
    return tree.value if isinstance(tree, Leaf) else {key: plain(value) for key, value in tree.items()}


def origins(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Pairs of a dotted key and where its value came from."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from origins(value, (*path, key))
        else:
            yield ".".join((*path, key)), value.source
