"""What the documentation shows is true."""

import doctest
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from config import ROOT

EXAMPLES = [path for path in sorted((ROOT / "docs").glob("*.md")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_give_what_is_printed_beside_them(path: object) -> None:
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert tried
    assert failed == 0


def shown_tests() -> list[Callable[..., None]]:
    """The tests of docs/testing.md."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(code, names)
    return [value for name, value in names.items() if name.startswith("test_")]


@pytest.mark.parametrize("test", shown_tests(), ids=lambda test: test.__name__)
def test_shown_tests_pass(test: Callable[..., None], request: pytest.FixtureRequest) -> None:
    test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})
