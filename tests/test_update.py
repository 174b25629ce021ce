"""A project follows its template with cruft."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from baking import TEMPLATE, files_of, run_in

CRUFT = Path(sys.executable).with_name("cruft")


def git(folder: Path, *arguments: str) -> None:
    """Run git as somebody, whatever the machine's own settings."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def commit_all(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-m", message)


@pytest.fixture
def template(template_copy: Path) -> Path:
    """The template as a repository with one commit."""
    git(template_copy, "init")
    commit_all(template_copy, "First")
    return template_copy


@pytest.fixture
def project(template: Path) -> Path:
    """A project that cruft has made from it, committed."""
    answers = json.dumps({"example": "none", "ci": "none"})
    result = run_in(template.parent, CRUFT, "create", str(template), "--no-input", "--extra-context", answers)
    assert result.returncode == 0, result.stdout
    [project] = (path.parent for path in template.parent.glob("*/.cruft.json"))
    git(project, "init")
    commit_all(project, "Start")
    return project


def test_cruft_makes_what_cookiecutter_makes(project: Path) -> None:
    options = ["--no-input", "-o", "plain", "example=none", "ci=none"]
    result = run_in(project.parent, sys.executable, "-m", "cookiecutter", TEMPLATE, *options)
    assert result.returncode == 0, result.stdout

    made = {name: file for name, file in files_of(project).items() if not name.startswith((".git/", ".cruft"))}

    assert made == files_of(project.parent / "plain" / project.name)


def test_an_update_brings_the_templates_change_and_keeps_the_projects_own(template: Path, project: Path) -> None:
    own = project / "README.md"
    own.write_text(own.read_text() + "\nOur own line.\n")
    commit_all(project, "Ours")
    assert run_in(project, CRUFT, "check").returncode == 0
    assert "Our own line" in run_in(project, CRUFT, "diff").stdout

    stylesheet = template / "{{cookiecutter.project_slug}}/app/static/style.css"
    stylesheet.write_text(stylesheet.read_text() + "\n.new {}\n")
    commit_all(template, "Second")

    assert run_in(project, CRUFT, "check").returncode == 1
    update = run_in(project, CRUFT, "update", "--skip-apply-ask")
    assert update.returncode == 0, update.stdout
    assert (project / "app/static/style.css").read_text().endswith(".new {}\n")
    assert own.read_text().endswith("Our own line.\n")
    assert not (project / "app/blog").exists()
    assert not list(project.rglob("*.rej"))
