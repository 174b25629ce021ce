"""A feature is a folder: others use what its `__init__.py` exports, and the wiring uses none of them by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import ROOT, feature_names

FEATURES = feature_names()


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "app" else [str(node.module)]
            )
        elif isinstance(node, ast.Import):
            yield from [alias.name for alias in node.names]


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_knows_of_others_what_they_export(feature: str) -> None:
    inside = [f"app.{other}." for other in FEATURES if other != feature]
    for path in (ROOT / "app" / feature).rglob("*.py"):
        assert [name for name in imported(path) if name.startswith(tuple(inside))] == [], path


def test_the_wiring_knows_no_feature() -> None:
    features = {f"app.{feature}" for feature in FEATURES}
    for path in (ROOT / "app").glob("*.py"):
        assert not features & set(imported(path)), path
