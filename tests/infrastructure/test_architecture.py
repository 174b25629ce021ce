"""What docs/architecture.md of the project names is there, and its arrows are those that import-linter proves."""

import re
import tomllib

from config import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
NAMED = re.findall(r"`([\w/.]+\.(?:py|yaml|toml))(?::(\w+))?`", PAGE)


def test_every_file_and_name_is_there() -> None:
    assert len(NAMED) > 30
    for path, name in NAMED:
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"(?m)^\s*(?:def|class) {name}\b|^{name} = ", text), f"{path}:{name}"


def test_the_arrows_are_the_contracts() -> None:
    drawing = PAGE.split("```")[1]
    layers, entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    drawn = [re.findall(r"(\w+)/ ", line) for line in drawing.replace("/__init__.py", "/ ").splitlines()]
    assert [line for line in drawn if line] == [re.findall(r"\w+", layer) for layer in layers["layers"]]
    assert re.findall(r"(\w+)\.py", drawing.splitlines()[1]) == entries["forbidden_modules"]
