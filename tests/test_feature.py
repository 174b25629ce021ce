"""`make feature` writes a feature that passes the gate, and refuses names that cannot be used."""

from pathlib import Path

import pytest
from baking import PROJECT_VENV, Bake, run_in
from releasing import commit, make

# Of the longest names, so that no line gets too long whatever a feature is called.
LONG = {"NAME": "quarterly_performance_targetsx", "ONE": "quarterly_performance_target"}
REFUSED = [
    ("", "", "small letters"),
    ("Bookmarks", "bookmark", "small letters"),
    ("../x", "y", "small letters"),
    ("blog", "blog_item", "NAME=blog is taken: by app/blog"),
    ("jobs", "job", "NAME=jobs is taken: by app/jobs.py"),
    ("login", "login_item", "NAME=login is taken: by the address /login"),
    ("articles", "post", "ONE=post is taken: by a table"),
    ("sessions", "session", "ONE=session is taken: by the class Session"),
    ("people", "user", "ONE=user is taken: by the class User"),
    ("inventory", "inventory", "make feature NAME=inventory ONE=inventory_item"),
]
PYTHON = PROJECT_VENV / "bin/python"


def test_a_feature_passes_the_gate_at_once_and_goes_without_a_trace(bake: Bake) -> None:
    project = bake()
    commit(project)
    make(project, "feature", "NAME=bookmarks")
    make(project, "feature", *(f"{key}={value}" for key, value in LONG.items()))
    make(project, "lint")
    folders = [f"tests/{kind}/{name}" for kind in ("unit", "integration") for name in ("bookmarks", LONG["NAME"])]
    tests = [*folders, "tests/unit/test_features.py", "tests/integration/database"]
    covered = ("--cov=app/bookmarks", "--cov-fail-under=100")
    gate = run_in(project, PYTHON, "-m", "pytest", "-q", "-n", "2", *tests, *covered)
    assert gate.returncode == 0, gate.stdout
    make(project, "setup")
    check = run_in(project, PYTHON, "main.py", "db", "check")
    assert check.returncode == 0, check.stdout

    for name in ("bookmarks", LONG["NAME"]):
        make(project, "remove-feature", f"NAME={name}", "ARGS=--yes")
    assert changes(project) == ""


def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(bake: Bake) -> None:
    project = bake(example="blog")
    commit(project)
    with pytest.raises(AssertionError, match=r"(?m)^NAME=class: expected .* no keyword of Python$"):
        make(project, "feature", "NAME=class")
    for name, one, reason in REFUSED:
        refusal = run_in(project, PYTHON, "-m", "scaffold.check_names", name, one)
        assert refusal.returncode == 1
        assert reason in refusal.stdout
        assert refusal.stdout.count("\n") == 1, refusal.stdout
    assert changes(project) == ""


def changes(project: Path) -> str:
    """What git sees of them."""
    return run_in(project, "git", "status", "--porcelain", "--untracked-files=all").stdout
