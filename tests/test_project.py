"""The generated project does what its README says: every command of it is run as it is printed."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from baking import EXAMPLE, PROJECT_VENV, TEMPLATE, Bake, clean_environment, commands_of, files_of, run_in
from demo import PAGES, fetch, free_port, stop, wait_until_ready
from how_to import apply_how_to
from releasing import commit, make
from test_feature import LONG

ENVIRONMENT = {"PATH": f"{TEMPLATE / '.venv/bin'}:{clean_environment()['PATH']}"}


def run(project: Path, command: str, **environ: str) -> str:
    """What a command of the shell prints, which has to succeed."""
    result = run_in(project, "sh", "-c", command, environ={**ENVIRONMENT, **environ})
    assert result.returncode == 0, f"{command}: {result.stdout[-5000:]}"
    assert "Traceback" not in result.stdout
    return result.stdout


@pytest.mark.long
def test_the_commands_of_readme_and_docs_work_as_printed(bake: Bake) -> None:
    """One walk, because `make ci` takes a minute: it has to pass before and after the how-tos."""
    project = bake(example=EXAMPLE)
    commit(project)
    commands = commands_of(project / "README.md")
    # The template's README has `make demo`, which is `make dev` in such a project.
    assert commands[:3] == ["make dev", "make test", "make ci"]
    run(project, "make setup")
    gate = run(project, "make ci")
    for page in sorted((project / "docs").glob("*.md")):
        commands += commands_of(page) if page.name != "how-to.md" else []
    for command in [commands[1], *commands[3:]]:
        # The gate has run these tests.
        run(project, command, PYTEST_ADDOPTS="--collect-only --quiet")
    follow_how_to(project)

    passed = re.search(r"(\d+) passed", gate)
    assert passed
    assert int(passed[1]) >= 150
    assert "0 broken" in gate


def follow_how_to(project: Path) -> None:
    """Build the page's feature, rename the project, and let the gate judge it, without all features that can go."""
    page = (project / "docs/how-to.md").read_text()
    apply_how_to(project)
    run(project, "make format")
    these = re.compile(r"make (dev|feature|setup)|perl |\.venv/bin/python main\.py (db|schedule)")
    printed = {}
    for command in filter(these.match, commands_of(project / "docs/how-to.md")):
        # It begins with the other, and then serves.
        printed[command] = run(project, "make setup" if command == "make dev" else command)

    assert len(list((project / "database/versions/notes").glob("*.py"))) == 1
    for schedule in ("remove_old_notes", "write_list"):
        assert schedule in printed[".venv/bin/python main.py schedule list"]
    assert "sent" in printed[".venv/bin/python main.py schedule history remove_old_notes"]
    refused = run_in(project, ".venv/bin/python", "main.py", "config", "show", environ={"APP_NOTES__KEEP_DAYS": "soon"})
    assert [refused.stdout] == re.findall(r"```\n(environment variable .*\n)```", page)
    assert "team_notes" in run(project, ".venv/bin/python main.py config show")

    debugging = next(command for command in commands_of(project / "docs/how-to.md") if "flask" in command)
    serve(debugging, project, [*PAGES, "/notes"])
    run(project, f"make feature API=1 {' '.join(f'{key}={value}' for key, value in LONG.items())}")
    # Nothing else names a feature, so that the rest passes without it.
    for feature in sorted({EXAMPLE, "ops"} - {"none"}):
        run(project, f"make remove-feature NAME={feature} ARGS=--yes")
    gate = run(project, "make ci")
    # It lists what its tests have not seen all of.
    assert "TOTAL" in gate
    assert not re.search(rf"app/(bookmarks|tasks|{LONG['NAME']})/", gate), gate


def test_removing_the_example_as_the_readme_says_leaves_all_the_rest(bake: Bake) -> None:
    blog, none = bake(example="blog"), bake(example="none")
    make(blog, "setup")
    apply_how_to(blog)
    for words in (["revision", "-m", "notes"], ["upgrade"]):
        assert run_in(blog, PROJECT_VENV / "bin/python", "main.py", "db", *words).returncode == 0
    for name, reason in (("accounts", "nothing was removed"), ("nope", "no folder of app/")):
        with pytest.raises(AssertionError, match=reason):
            make(blog, "remove-feature", f"NAME={name}", "ARGS=--yes")
    make(blog, "remove-feature", "NAME=blog", "ARGS=--yes")

    make(blog, "setup")

    check = run_in(blog, PROJECT_VENV / "bin/python", "main.py", "db", "check")
    assert check.returncode == 0, check.stdout
    own = r"README\.md|instance/.*|(.*/)?__pycache__/.*|\.ruff_cache/.*|.*/notes/.*|config/notes\.yaml"
    left = {path: file for path, file in files_of(blog).items() if not re.fullmatch(own, path)}
    assert left == {path: file for path, file in files_of(none).items() if path != "README.md"}


def serve(command: str, folder: Path, pages: Iterable[str]) -> None:
    """Run the command that serves, ask for pages, and stop it."""
    port = free_port()
    environ = {**clean_environment(), **ENVIRONMENT, "PORT": str(port), "FLASK_RUN_PORT": str(port)}
    process = subprocess.Popen(command.split(), cwd=folder, env=environ, start_new_session=True)
    try:
        assert wait_until_ready(process, f"http://127.0.0.1:{port}")
        for path in pages:
            assert fetch(f"http://127.0.0.1:{port}{path}")[0] == 200, path
    finally:
        assert stop(process)
