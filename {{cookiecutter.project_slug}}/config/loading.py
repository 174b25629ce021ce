"""From files and environment to checked settings."""

import configparser
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import yaml
from dotenv.parser import parse_stream

from config.appdir import ROOT, AppDir
from config.errors import ConfigError
from config.masking import mask
from config.settings import SECTIONS, Settings, source_of

ENVIRONMENTS = ("development", "testing", "production")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\}")


def load(environ: Mapping[str, str] | None = None, root: Path = ROOT) -> Settings:
    """Read and check all settings.

    Args:
        environ: environment variables; those of the process if not given. The app folder's `.env` lies under them.
        root: the project's folder, which holds `config/`.

    Raises:
        ConfigError: with one line for each thing that is wrong.
    """
    environ = os.environ if environ is None else environ
    app_dir = find_app_dir(environ, root)
    environ = {**_env_file(app_dir.env_file), **environ, "APP_DIR": str(app_dir.path)}
    environment = environ.get("APP_ENV", "development")
    if environment not in ENVIRONMENTS:
        raise ConfigError(f"APP_ENV: found {environment!r}, expected one of {', '.join(ENVIRONMENTS)}")

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for folder in (root / "config", root / "config" / environment, app_dir.config):
        for path in sorted(path for path in folder.glob("*.*") if path.suffix in PARSERS):
            source = str(path.relative_to(root) if path.is_relative_to(root) else path)
            _lay_over(values, {path.stem: _fill_in(_parse(path, source), environ, source)}, source, origins)
    for name, text in sorted(environ.items()):
        if name.startswith("APP_") and "__" in name:
            _lay_over(values, _from_variable(name, text), f"environment variable {name}", origins)
    problems: list[str] = []

    def wrong(key: str, reason: str) -> None:
        problems.append(f"{source_of(key.partition('[')[0], origins)}: {key}: {reason}")

    known = SECTIONS | _feature_sections(root)
    sections = {name: _typed(name, values.pop(name, {}), kind, wrong) for name, kind in known.items()}
    for name in values:
        wrong(name, f"unknown section, expected one of {', '.join(known)}")
    if problems:
        raise ConfigError("\n".join(problems))
    features = {name: sections.pop(name) for name in known.keys() - SECTIONS.keys()}
    return Settings(environment, root, app_dir, origins, features, **sections)


def find_app_dir(environ: Mapping[str, str] | None = None, root: Path = ROOT) -> AppDir:
    """The app folder, which can be found while other settings are wrong."""
    environ = os.environ if environ is None else environ
    if given := environ.get("APP_DIR"):
        return AppDir(Path(given).absolute())
    if environ.get("APP_ENV") == "production":
        return AppDir(Path("/srv", _project(root)["name"], "shared"))
    return AppDir(root / "instance")


def feature_names(root: Path = ROOT) -> list[str]:
    """The features: the folders of `app/` that are packages."""
    return sorted(path.parent.name for path in (root / "app").glob("*/__init__.py"))


def _feature_sections(root: Path) -> dict[str, type[msgspec.Struct]]:
    """The struct of each feature that has `settings.py`, called as the feature: `Blog`.

    Only that file is run. Importing it as a part of the app would import the app, which stands on the settings.
    """
    sections = {}
    for feature in feature_names(root):
        if feature in SECTIONS:
            raise ConfigError(f"app/{feature}/: is called as a section of config/settings.py; choose another name")
        path, name, kind = root / "app" / feature / "settings.py", f"app.{feature}.settings", feature.title()
        if not path.is_file():
            continue
        if name not in sys.modules:
            spec: Any = spec_from_file_location(name, path)
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[name] = module
        if not (struct := getattr(sys.modules[name], kind.replace("_", ""), None)):
            raise ConfigError(f"app/{feature}/settings.py: expected a struct called {kind.replace('_', '')}")
        sections[feature] = struct
    return sections


def project_version(root: Path = ROOT) -> str:
    return str(_project(root)["version"])


@cache
def project_release(root: Path = ROOT) -> str | None:
    """The name of the release that this code is, from the file `RELEASE` beside it; None where nothing was deployed."""
    try:
        return (root / "RELEASE").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


@cache
def _project(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def _env_file(path: Path) -> dict[str, str]:
    """The variables of a `.env` file, as python-dotenv reads it; a broken line, which may be a secret, is not shown."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if broken := [binding for binding in bindings if binding.error or (binding.key and binding.value is None)]:
        raise ConfigError("\n".join(f"{path}:{binding.original.line}: expected NAME=value" for binding in broken))
    return {binding.key: binding.value or "" for binding in bindings if binding.key}


def _parse_ini(text: str) -> dict[str, Any]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    parser.read_string(text)
    return {key: value for name in parser.sections() for key, value in parser[name].items()}


PARSERS: dict[str, Callable[[str], Any]] = {
    # Both are safe; the one in C, where it is there, is ten times as fast.
    ".yaml": partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)),
    ".json": json.loads,
    ".ini": _parse_ini,
}


def _parse(path: Path, source: str) -> dict[str, Any]:
    try:
        content = PARSERS[path.suffix](path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, configparser.Error) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{source}: cannot be read as {path.suffix[1:].upper()}: {reason}") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{source}: expected keys with values, found {type(content).__name__}")
    return content or {}


def _fill_in(value: Any, environ: Mapping[str, str], source: str) -> Any:
    """`${NAME}` and `${NAME:default}` in every text replaced: after parsing, so that a value stays one value."""

    def variable(match: re.Match[str]) -> str:
        found = environ.get(match[1], match[2])
        if found is None:
            name = match[1]
            raise ConfigError(f"{source}: ${{{name}}} is not set; set it in the environment or the app folder's .env")
        return found

    if isinstance(value, dict):
        return {key: _fill_in(inner, environ, source) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill_in(inner, environ, source) for inner in value]
    return VARIABLE.sub(variable, value) if isinstance(value, str) else value


def _from_variable(name: str, value: Any) -> Any:
    """What `APP_<SECTION>__<KEY>` says. With `__FILE` behind it, the value is that file's text."""
    path = name.removeprefix("APP_").lower().split("__")
    if path[-1] == "file" and len(path) > 2:
        path.pop()
        try:
            value = Path(value).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"environment variable {name}: {value} cannot be read: {error}") from None
    for key in reversed(path):
        value = {key: value}
    return value


def _lay_over(
    below: dict[str, Any], above: dict[str, Any], source: str, origins: dict[str, str], path: str = ""
) -> None:
    """Put `above` over `below`, key by key, and note where each value came from."""
    for key, value in above.items():
        here = f"{path}{key}"
        if isinstance(value, dict) and isinstance(below.setdefault(key, {}), dict):
            _lay_over(below[key], value, source, origins, f"{here}.")
        else:
            for inner in [name for name in origins if name.startswith(f"{here}.")]:
                del origins[inner]
            below[key], origins[here] = value, source


def _typed(key: str, value: Any, kind: Any, wrong: Callable[[str, str], None]) -> Any:
    """`value` as `kind`: a struct, a table of free keys, or what msgspec converts. `wrong` is told of each mistake."""
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        found = {}
        for name in fields | value:
            if name not in fields:
                wrong(f"{key}.{name}", f"unknown key, expected one of {', '.join(fields)}")
            elif name not in value:
                wrong(f"{key}.{name}", "is missing")
            else:
                found[name] = _typed(f"{key}.{name}", value[name], fields[name], wrong)
        return kind(**found) if len(found) == len(fields) else None
    if isinstance(value, dict) and get_origin(kind) is dict:
        return {str(name): _typed(f"{key}.{name}", inner, get_args(kind)[1], wrong) for name, inner in value.items()}
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(value, str) and value[:1] in ("[", "{"):
            with suppress(json.JSONDecodeError):  # Lists and tables come as JSON from environment variables.
                return _typed(key, json.loads(value), kind, wrong)
        reason, _, place = str(error).replace("`", "").partition(" - at $")
        shown = "" if isinstance(value, dict | list) else f", found {mask(key, value)!r}"
        hint = "; put it in quotes" if reason.startswith("Expected str, got") else ""
        wrong(f"{key}{place}", f"{reason.partition(', got')[0].replace('Expected', 'expected')}{shown}{hint}")
        return None
