"""What the documentation shows is true."""

import doctest

import pytest

from config import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_examples_give_what_is_printed_beside_them(path: object) -> None:
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert tried
    assert failed == 0
