"""A feature is a folder: others use what its `__init__.py` exports, and the wiring uses none of them by name."""

import re

import pytest

from config import ROOT, feature_names

IMPORTED = re.compile(r"(?m)^\s*(?:from|import) app[. ](?:import )?([\w.]+)")


@pytest.mark.parametrize("feature", feature_names())
def test_a_feature_knows_of_others_what_they_export(feature: str) -> None:
    inside = tuple(f"{other}." for other in feature_names() if other != feature)
    for path in (ROOT / "app" / feature).rglob("*.py"):
        assert not [name for name in IMPORTED.findall(path.read_text()) if name.startswith(inside)], path


def test_the_wiring_knows_no_feature() -> None:
    for path in (ROOT / "app").glob("*.py"):
        names = {name.partition(".")[0] for name in IMPORTED.findall(path.read_text())}
        assert not names & set(feature_names()), path
