"""`make feature` writes a feature that can go again, and refuses names that cannot be used."""

import json
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
CHECK_NAMES = """
import json, sys
from scaffold.check_names import problem
print(json.dumps([problem(*names) for names in json.loads(sys.argv[1])]))
"""
PYTHON = PROJECT_VENV / "bin/python"


# Two features at once, of which the first by name needs the other; and a table between them.
ZETA = """from flask import Flask
from sqlalchemy.orm import Mapped

from database import Base, PrimaryKey


class Zeta(Base):
    __tablename__ = "zeta"

    id: Mapped[PrimaryKey]


def register(_app: Flask) -> None:
    pass
"""
ALPHA = """from flask import Flask
from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.zeta import Zeta
from database import Base, PrimaryKey

between = Table(
    "alpha_zeta",
    Base.metadata,
    Column("alpha_id", ForeignKey("alpha.id"), primary_key=True),
    Column("zeta_id", ForeignKey(Zeta.id), primary_key=True),
)


class Alpha(Base):
    __tablename__ = "alpha"

    id: Mapped[PrimaryKey]
    zeta_id: Mapped[int] = mapped_column(ForeignKey(Zeta.id))
    zetas: Mapped[list[Zeta]] = relationship(secondary=between)


def register(_app: Flask) -> None:
    pass
"""


def test_a_feature_goes_without_a_trace(bake: Bake) -> None:
    """test_project.py checks that it passes the gate."""
    project = bake()
    commit(project)
    make(project, "feature", "NAME=bookmarks")
    make(project, "feature", *(f"{key}={value}" for key, value in LONG.items()))
    make(project, "setup")
    for arguments in (["check"], ["downgrade", "bookmarks@base"], ["upgrade"]):
        result = run_in(project, PYTHON, "main.py", "db", *arguments)
        assert result.returncode == 0, result.stdout

    # Without an answer, nothing is removed, tables or not.
    refused = run_in(
        project,
        "sh",
        "-c",
        f"make remove-feature NAME=bookmarks VENV={PROJECT_VENV} -o {PROJECT_VENV}/ready < /dev/null",
    )
    assert "Delete app/bookmarks/" in refused.stdout
    assert refused.returncode != 0
    assert (project / "app/bookmarks/views.py").exists()
    # Nor is the API, while a feature has operations.
    with pytest.raises(AssertionError, match=r"app/blog/api\.py"):
        make(project, "remove-feature", "NAME=api", "ARGS=--yes")
    for name in ("bookmarks", LONG["NAME"]):
        make(project, "remove-feature", f"NAME={name}", "ARGS=--yes")
    assert changes(project) == ""


def test_new_features_that_refer_to_each_other_get_their_revisions_in_order(bake: Bake) -> None:
    project = bake(example="none")
    make(project, "setup")
    for name, code in (("alpha", ALPHA), ("zeta", ZETA)):
        (project / "app" / name).mkdir()
        (project / "app" / name / "__init__.py").write_text(code)

    def db(*arguments: str) -> str:
        result = run_in(project, PYTHON, "main.py", "db", *arguments)
        assert result.returncode == 0, result.stdout
        return result.stdout

    db("revision", "-m", "both")
    [alpha], [zeta] = (list((project / "database/versions" / name).glob("*.py")) for name in ("alpha", "zeta"))
    assert "alpha_zeta" in alpha.read_text()
    assert "alpha" not in zeta.read_text()
    db("upgrade")
    db("check")
    with pytest.raises(AssertionError, match="nothing was removed"):
        make(project, "remove-feature", "NAME=zeta", "ARGS=--yes")
    for name in ("alpha", "zeta", "api"):
        make(project, "remove-feature", f"NAME={name}", "ARGS=--yes")
    db("upgrade")
    db("check")
    rest = run_in(project, PYTHON, "-m", "pytest", "-q", "tests/unit/test_features.py", "tests/integration/accounts")
    assert rest.returncode == 0, rest.stdout
    with pytest.raises(AssertionError, match="API=1: app/api/ is not there any more"):
        make(project, "feature", "NAME=recipes", "API=1")


def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(bake: Bake) -> None:
    project = bake(example="blog")
    commit(project)
    with pytest.raises(AssertionError, match=r"(?m)^NAME=class: expected .* not a Python keyword$"):
        make(project, "feature", "NAME=class")
    answer = run_in(project, PYTHON, "-c", CHECK_NAMES, json.dumps([names for *names, _ in REFUSED]))
    assert answer.returncode == 0, answer.stdout
    for (*_, reason), refusal in zip(REFUSED, json.loads(answer.stdout), strict=True):
        assert reason in refusal
        assert "\n" not in refusal
    assert changes(project) == ""


def changes(project: Path) -> str:
    """What git sees of them."""
    return run_in(project, "git", "status", "--porcelain", "--untracked-files=all").stdout
