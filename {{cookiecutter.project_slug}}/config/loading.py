"""From files and environment to checked settings."""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from config.appdir import ROOT, AppDir, application
from config.env_file import read_env_file
from config.masking import mask
from config.settings import Settings
from config.sources import ConfigError, Tree, fill_in, origins, overlay, plain, read_environment, read_folder

ENVIRONMENTS = ("development", "testing", "production")
SECTIONS = {
    name: kind
    for name, kind in get_type_hints(Settings).items()
    if name == "logging" or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))
}
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`")


@cache
def project_version(root: Path = ROOT) -> str:
    """The version in `pyproject.toml`."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


@cache
def project_release(root: Path = ROOT) -> str | None:
    """The name of the release that this code is, which `deploy/release.py` writes beside it; None elsewhere."""
    try:
        return (root / "RELEASE").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def load(environ: Mapping[str, str] | None = None, root: Path = ROOT) -> Settings:
    """Read and check all settings.

    Args:
        environ: environment variables; those of the process if not given. The app folder's `.env` lies under them.
        root: the project's folder, which holds `config/`.

    Raises:
        ConfigError: with one line for each thing that is wrong.
    """
    environ = os.environ if environ is None else environ
    base = read_folder(root / "config", root)
    app_dir = find_app_dir(environ, root)
    environ = {**read_env_file(app_dir.env_file), **environ}
    environment = _environment(environ)

    tree = base
    for above in (
        read_folder(root / "config" / environment, root),
        read_folder(app_dir.config, root),
        read_environment(environ),
    ):
        tree = overlay(tree, above)
    tree = fill_in(tree, {**environ, "APP_DIR": str(app_dir.path)})

    problems: list[str] = []
    sections = {name: _section(name, kind, tree.get(name), problems) for name, kind in SECTIONS.items()}
    for key, source in origins(tree):
        if (section := key.split(".")[0]) not in SECTIONS:
            problems.append(f"{source}: {section}: unknown section; expected one of {', '.join(SECTIONS)}")
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return Settings(environment=environment, root=root, app_dir=app_dir, origins=dict(origins(tree)), **sections)


def find_app_dir(environ: Mapping[str, str] | None = None, root: Path = ROOT) -> AppDir:
    """The app folder, which can be found while other settings are wrong.

    Args:
        environ: environment variables; those of the process if not given.
        root: the project's folder.

    Raises:
        ConfigError: APP_DIR is empty.
    """
    environ = os.environ if environ is None else environ
    if "APP_DIR" in environ:
        if not environ["APP_DIR"]:
            raise ConfigError("environment variable APP_DIR: found nothing, expected a folder; set or unset it")
        return AppDir(Path(environ["APP_DIR"]).absolute())
    if environ.get("APP_ENV") == "production":
        return AppDir(Path("/srv", application(root), "shared"))
    return AppDir(root / "instance")


def _environment(environ: Mapping[str, str]) -> str:
    environment = environ.get("APP_ENV", "development")
    if environment not in ENVIRONMENTS:
        raise ConfigError(f"APP_ENV: found {environment!r}, expected one of {', '.join(ENVIRONMENTS)}")
    return environment


def _section(name: str, kind: Any, tree: Tree | None, problems: list[str]) -> Any:
    """The section's struct; adds a line to `problems` for each key that is wrong."""
    if tree is None:
        problems.append(f"config/{name}.*: {name}: the file is missing; bring it back from the template")
        return None
    if name == "logging":
        return plain(tree)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    sources = dict(origins(tree, (name,)))
    for key in tree.keys() - fields.keys():
        source = _first(sources, f"{name}.{key}")
        problems.append(f"{source}: {name}.{key}: unknown key; expected one of {', '.join(fields)}")
    values = {}
    for key, field in fields.items():
        if key not in tree:
            problems.append(f"{_first(sources, name)}: {name}.{key}: missing; expected {_wanted(field.type)}")
            continue
        value = _from_text(plain(tree[key]), field.type)
        try:
            values[key] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            if isinstance(value, dict) and "`$[...]" in str(error):
                problems += _table_problems(f"{name}.{key}", field.type, value, sources)
                continue
            reason, _, inner = str(error).partition(" - at `$")
            path = f"{name}.{key}{inner.rstrip('`')}"
            if unknown := UNKNOWN_FIELD.fullmatch(reason):
                path, reason = f"{path}.{unknown[1]}", "unknown key"
            source = sources.get(path) or _first(sources, f"{name}.{key}")
            problems.append(f"{source}: {path}: {_explain(reason, path, value)}")
    return kind(**values) if len(values) == len(fields) else None


def _table_problems(path: str, kind: Any, table: dict[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    """A line for each key of a table that is wrong; msgspec does not say which."""
    for key, value in table.items():
        try:
            msgspec.convert({key: value}, kind, strict=False)
        except msgspec.ValidationError as error:
            here = f"{path}.{key}"
            yield f"{_first(sources, here)}: {here}: {_explain(str(error).partition(' - at')[0], here, value)}"


def _first(sources: Mapping[str, str], prefix: str) -> str:
    found = (source for path, source in sources.items() if f"{path}.".startswith(f"{prefix}."))
    return next(found, f"config/{prefix.partition('.')[0]}.*")


def _wanted(kind: Any) -> str:
    kind = getattr(kind, "__origin__", kind)
    return {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}.get(
        getattr(kind, "__name__", ""), "a list or table"
    )


def _from_text(value: Any, kind: Any) -> Any:
    """A list or table that came as JSON text, as it does from an environment variable."""
    if isinstance(value, str) and _wanted(kind) == "a list or table" and value[:1] in "[{":
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _explain(reason: str, path: str, value: Any) -> str:
    reason = reason[0].lower() + reason[1:].replace("`", "")
    if isinstance(value, dict):
        return reason
    hint = "; put it in quotes" if reason.startswith("expected str") and not isinstance(value, str) else ""
    return f"{reason.split(', got')[0]}, found {mask(path, value)!r}{hint}"
