"""What the documentation shows is true."""

import doctest

import pytest

from config import ROOT

EXAMPLES = [path for path in sorted((ROOT / "docs").glob("*.md")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_give_what_is_printed_beside_them(path: object) -> None:
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert tried
    assert failed == 0
