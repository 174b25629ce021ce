"""What takes too long for the hook: faults in a generated project's data, pages and settings, with file and line.

Faults in its Python are found by its own `make lint`, those of its units, of nginx and of the image by
tests/infrastructure/deploy.
"""

import configparser
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import yaml
from baking import PROJECT_VENV, run_in

# Written for Cookiecutter, with tags in other brackets, and read once a feature is made of them.
SUB_TEMPLATE = "scaffold/[["
LOAD_SETTINGS = """
import sys, app.logs, config
for environment in ("testing", "development", "production"):
    try:
        app.logs.set_up(config.load({"APP_ENV": environment, "APP_DIR": sys.argv[1]}))
    except config.ConfigError as error:
        print(error)
"""


def find_faults(project: Path) -> list[str]:
    """One line for each fault in data and pages."""
    texts = {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(project.rglob("*"))
        if path.suffix in {*PARSERS, ".html", ".py"} and path.is_file()
    }
    texts = {path: text for path, text in texts.items() if not path.startswith(SUB_TEMPLATE)}
    return [*check_data(texts), *check_pages(texts)]


def find_wrong_settings(project: Path, app_dir: Path) -> list[str]:
    """What the service says of its settings, in each of its environments."""
    said = run_in(project, PROJECT_VENV / "bin/python", "-B", "-c", LOAD_SETTINGS, app_dir).stdout
    return list(dict.fromkeys(said.splitlines()))


def check_data(texts: dict[str, str]) -> Iterator[str]:
    """Data can be read, and no key is there twice."""
    for path, text in texts.items():
        try:
            PARSERS.get(Path(path).suffix, str)(text)
        except (ValueError, yaml.YAMLError, configparser.Error) as error:
            message = " ".join(str(error).split())
            line = re.findall(r"line:?\s+(\d+)", message) or ["1"]
            yield f"{path}:{line[-1]}: does not parse: {message}"


class UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping in which a key is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, in which no key may be twice."""
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{twice[0]} twice")
    return dict(pairs)


PARSERS: dict[str, Callable[[str], object]] = {
    ".toml": tomllib.loads,
    ".json": lambda text: json.loads(text, object_pairs_hook=unique_keys),
    ".yaml": lambda text: yaml.load(text, UniqueKeys),
    ".yml": lambda text: yaml.load(text, UniqueKeys),
    ".ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
}


def check_pages(texts: dict[str, str]) -> Iterator[str]:
    """Templates compile, with filters that are Jinja's or a function of the app, and close the tags that they open."""
    environment = jinja2.Environment(autoescape=True)
    for path, text in texts.items():
        if path.startswith("app/") and path.endswith(".py"):
            environment.filters.update(dict.fromkeys(re.findall(r"(?m)^ *def (\w+)", text), str))
    for path, text in texts.items():
        if "/templates/" not in path:
            continue
        try:
            environment.compile(text)
        except jinja2.TemplateSyntaxError as error:
            yield f"{path}:{error.lineno}: does not compile: {error.message}"
            continue
        # Below a condition, Jinja looks for them only when it renders.
        for node in environment.parse(text).find_all((jinja2.nodes.Filter, jinja2.nodes.Test)):
            kind = type(node).__name__.lower()
            if node.name not in getattr(environment, f"{kind}s"):
                yield f"{path}:{node.lineno}: does not compile: No {kind} named {node.name!r}."
        yield from (f"{path}:{line}: {problem}" for line, problem in Tags(text).problems)


class Tags(HTMLParser):
    """Which tags of a page are not closed, or closed without being open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, int]] = []
        self.problems: list[tuple[int, str]] = []
        self.feed(re.sub(r"(?s)\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", lambda found: "\n" * found[0].count("\n"), page))
        self.close()
        self.problems += [(line, f"<{tag}> is not closed") for tag, line in self.open]

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in {"br", "hr", "img", "input", "link", "meta", "source", "wbr"}:
            self.open.append((tag, self.getpos()[0]))

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """It is closed in itself."""

    def handle_endtag(self, tag: str) -> None:
        if tag not in [name for name, _ in self.open]:
            self.problems.append((self.getpos()[0], f"</{tag}> closes nothing"))
            return
        while (last := self.open.pop())[0] != tag:
            self.problems.append((last[1], f"<{last[0]}> is not closed"))
