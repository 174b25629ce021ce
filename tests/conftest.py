"""Fixtures of the template's tests."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from baking import TEMPLATE, Bake, not_offered
from pytest_cookies.plugin import Cookies

# A shell that starts tests in the background has them ignore Ctrl-C, and so would what they start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def bake(cookies: Cookies, capfd: pytest.CaptureFixture[str]) -> Bake:
    """Bakes a project with the answers that are given, and the defaults for the others.

    A test that needs a choice gives it, and is skipped in a fork that does not offer it.
    """

    def bake(**answers: str) -> Path:
        if missing := not_offered(answers):
            pytest.skip(f"cookiecutter.json does not offer {', '.join(missing)}")
        result = cookies.bake(extra_context=answers)
        # What the hooks found names the file to look at.
        assert result.exception is None, f"{capfd.readouterr().err}{result.exception}"
        return Path(result.project_path)

    return bake


@pytest.fixture
def template_copy(tmp_path: Path) -> Path:
    """The template as git knows it, to be changed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=TEMPLATE,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path / "template"
    for name in filter(None, listing.stdout.split("\0")):
        if (TEMPLATE / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, target)
    return copy
