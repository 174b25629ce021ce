"""The generated project does what its README says: every command of it is run as it is printed."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from baking import EXAMPLES, PROJECT_VENV, TEMPLATE, Bake, clean_environment, commands_of, replace, run_in
from demo import PAGES, fetch, free_port, stop, wait_until_ready
from releasing import commit

ENVIRONMENT = {"PATH": f"{TEMPLATE / '.venv/bin'}:{clean_environment()['PATH']}"}


@pytest.fixture(params=EXAMPLES)
def project(request: pytest.FixtureRequest, bake: Bake) -> Path:
    """A project for each value of `example`, as a user has it: without an environment."""
    return bake(example=request.param)


@pytest.fixture
def blog(bake: Bake) -> Path:
    """A project with the blog, for tests that leave the slow half of its own to the README's `make ci`."""
    return bake(example="blog")


def test_the_readme_commands_work_as_printed(project: Path) -> None:
    commands = commands_of(project / "README.md")
    assert commands[0] == "make dev"
    assert {"make test", "make ci", "make"} <= set(commands)
    for page in sorted((project / "docs").glob("*.md")):
        commands += commands_of(page)

    serve(commands.pop(0), project)
    commit(project)
    outputs = {}
    for command in commands:
        result = run_in(project, "sh", "-c", command, environ=ENVIRONMENT)
        assert result.returncode == 0, f"{command}: {result.stdout[-5000:]}"
        assert "Traceback" not in result.stdout
        outputs[command] = result.stdout

    passed = re.search(r"(\d+) passed", outputs["make ci"])
    assert passed
    if (project / "app/blog").exists():
        assert int(passed[1]) >= 150
    assert "0 broken" in outputs["make ci"]


def test_removing_the_example_as_the_readme_says_leaves_a_service_that_passes(blog: Path) -> None:
    shared = ["UV=", f"VENV={PROJECT_VENV}", "-o", f"{PROJECT_VENV}/ready"]
    assert run_in(blog, "make", "setup", *shared).returncode == 0
    paragraph = next(part for part in (blog / "README.md").read_text().split("\n\n") if "is an example" in part)
    command = next(text for text in re.findall("`([^`]+)`", paragraph) if text.startswith("python main.py"))
    assert run_in(blog, PROJECT_VENV / "bin/python", *command.split()[1:]).returncode == 0
    for path in re.findall(r"`([\w/.]*/[\w/.]*)`", paragraph):
        if path == "config/app.yaml":
            replace(blog / path, "[blog, ", "[")
        elif path.endswith("/"):
            shutil.rmtree(blog / path)
        else:
            (blog / path).unlink()

    assert run_in(blog, "make", "setup", *shared).returncode == 0
    result = run_in(blog, "make", "lint", "test", *shared)

    assert result.returncode == 0, result.stdout[-5000:]


def test_a_first_feature_as_the_readme_shows_it_passes_lint_and_tests(blog: Path) -> None:
    readme = (blog / "README.md").read_text()
    files = re.findall(r"`(app/notes/\w+\.py)`:\n\n```python\n(.*?)```", readme, re.DOTALL)
    assert len(files) == 3
    for path, text in files:
        (blog / path).parent.mkdir(exist_ok=True)
        (blog / path).write_text(text)
    replace(blog / "config/app.yaml", "features: [", "features: [notes, ")
    replace(blog / "pyproject.toml", '"(blog) | ops"', '"(blog) | notes | ops"')
    shared = ["UV=", f"VENV={PROJECT_VENV}", "-o", f"{PROJECT_VENV}/ready"]
    assert run_in(blog, "make", "setup", *shared).returncode == 0

    for command in re.findall(r"`\.venv/bin/python (main\.py db [^`]+)`", readme):
        result = run_in(blog, PROJECT_VENV / "bin/python", *shlex.split(command))
        assert result.returncode == 0, result.stdout
    result = run_in(blog, "make", "lint", "test", *shared)

    assert result.returncode == 0, result.stdout[-5000:]
    assert len(list((blog / "database/versions").glob("*_notes_*.py"))) == 1


def serve(command: str, folder: Path) -> None:
    """Run the command that serves, ask for all pages, and stop it."""
    port = free_port()
    environ = {**clean_environment(), **ENVIRONMENT, "PORT": str(port)}
    process = subprocess.Popen(command.split(), cwd=folder, env=environ, start_new_session=True)
    try:
        assert wait_until_ready(process, f"http://127.0.0.1:{port}")
        for path in PAGES:
            assert fetch(f"http://127.0.0.1:{port}{path}")[0] == 200, path
    finally:
        assert stop(process)
