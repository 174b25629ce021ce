"""A project knows its template, says how it differs, and follows it: with make, and with cruft as it is."""

import json
import re
import sqlite3
import tomllib
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import EXAMPLE, PROJECT_VENV, TEMPLATE, files_of, replace, run_in
from releasing import GIT

CRUFT = PROJECT_VENV / "bin/cruft"
COOKIECUTTER = PROJECT_VENV / "bin/cookiecutter"
PROJECT = "{{cookiecutter.project_slug}}"
# Where git finds the template, whose real place the projects cannot know.
ADDRESS = "https://example.org/template.git"
# Of the project's tests, those that an update could break most easily.
TESTS = ("tests/unit/bookmarks", "tests/unit/test_features.py", "tests/integration/database/test_migrations.py")
INSERT = """
INSERT INTO user_account (id, username, email, password_hash, session_key, created, is_admin)
    VALUES (1, 'ada', '-', '-', '-', '2026-01-01 00:00:00+00:00', 0);
INSERT INTO transfer (id, owner_id, disk, file, state, done, total, mistakes, created)
    VALUES ('t', 1, 'exports', 'f', 'done', 1, 1, '[]', '2026-01-01 00:00:00+00:00');
INSERT INTO bookmark (owner_id, title, notes, created) VALUES (1, 'kept', '', '2026-01-01 00:00:00+00:00');
"""
REVISION = """import sqlalchemy as sa
from alembic import op

revision = "0003_note"
down_revision = "0002_transfers"


def upgrade() -> None:
    op.add_column("transfer", sa.Column("note", sa.String(10)))


def downgrade() -> None:
    op.drop_column("transfer", "note")
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home without settings, but for the template's address."""
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "{tmp_path}/template"]\ninsteadOf = {ADDRESS}\n')
    return {**GIT, "GIT_CONFIG_GLOBAL": str(config), "HOME": str(tmp_path)}


def git(folder: Path, *arguments: str) -> str:
    """What git prints."""
    result = run_in(folder, "git", *arguments, environ=GIT)
    assert result.returncode == 0, result.stdout
    return result.stdout


def commit_all(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


@pytest.fixture
def template(template_copy: Path) -> Path:
    """The template as a repository with one commit."""
    git(template_copy, "init", "-q")
    commit_all(template_copy, "First")
    return template_copy


def generate(folder: Path, template: str | Path, environ: dict[str, str], *answers: str) -> Path:
    """A project by plain Cookiecutter."""
    folder.mkdir(exist_ok=True)
    result = run_in(folder, COOKIECUTTER, template, "--no-input", "-o", "made", *answers, environ=environ)
    assert result.returncode == 0, result.stdout
    [project] = (folder / "made").iterdir()
    return project


@pytest.fixture
def project(template: Path, environ: dict[str, str]) -> Path:
    """A project by plain Cookiecutter from the template's address, with the environment of all tests."""
    project = generate(template.parent, ADDRESS, environ, f"example={EXAMPLE}")
    (project / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (project / ".venv" / name).symlink_to(PROJECT_VENV / name)
    (project / ".venv/ready").touch()
    git(project, "init", "-q")
    return project


def make(project: Path, environ: dict[str, str], *arguments: str) -> CompletedProcess[str]:
    """Run make, with an installer that does nothing."""
    return run_in(project, "make", "UV=true", *arguments, environ=environ)


def test_a_project_records_its_answers_and_the_template_but_no_path_of_a_machine(
    template: Path, environ: dict[str, str]
) -> None:
    folder = template.parent
    commit = git(template, "rev-parse", "HEAD").strip()
    git(folder, "clone", "-q", str(template), "clone")
    git(folder, "clone", "-q", str(template), "named")
    git(folder / "named", "remote", "set-url", "origin", ADDRESS.replace("//", "//ada:token@"))
    git(template, "archive", "--prefix=archive/", f"--output={folder}/archive.zip", "HEAD")
    records = {}
    for name in ("template", "clone", "named", "archive.zip"):
        records[name] = (
            generate(folder / f"from {name}", folder / name, environ, "ci=none") / ".cruft.json"
        ).read_text()

    record = json.loads(records["named"])
    assert (record["template"], record["commit"]) == (ADDRESS, commit)
    answers = record["context"]["cookiecutter"]
    assert answers.keys() == {
        name for name in json.loads((TEMPLATE / "cookiecutter.json").read_text()) if name[0] != "_"
    }
    assert answers["ci"] == "none"
    unnamed = records["named"].replace(ADDRESS, "")
    assert records == {**dict.fromkeys(records, unnamed), "named": records["named"]}


def test_cruft_makes_what_cookiecutter_makes_and_the_hooks_are_silent(template: Path, environ: dict[str, str]) -> None:
    answers = json.dumps({"example": "none", "ci": "none"})
    options = ["--no-input", "--extra-context", answers]
    result = run_in(template.parent, CRUFT, "create", ADDRESS, *options, environ=environ)
    assert (result.returncode, result.stdout) == (0, "")
    plain = files_of(generate(template.parent, ADDRESS, environ, "example=none", "ci=none"))

    [made] = (path.parent for path in template.parent.glob("*/.cruft.json"))

    assert plain.pop(".cruft.json")
    made_files = files_of(made)
    made_files.pop(".cruft.json")
    assert made_files == plain


def test_what_cannot_be_updated_is_told_in_a_line_and_left_as_it_is(
    template: Path, project: Path, environ: dict[str, str]
) -> None:
    assert make(project, environ, "setup").returncode == 0
    commit_all(project, "Ours")
    assert make(project, environ, "compare").returncode == 0
    assert run_in(project, CRUFT, "check", environ=environ).returncode == 0
    unreachable = environ | {"GIT_CONFIG_GLOBAL": environ["GIT_CONFIG_GLOBAL"] + "-2"}
    Path(unreachable["GIT_CONFIG_GLOBAL"]).write_text(f'[url "http://127.0.0.1:1"]\ninsteadOf = {ADDRESS}\n')

    def own_files() -> dict[str, tuple[bytes, int]]:
        return {path: file for path, file in files_of(project).items() if not path.startswith((".git/", ".update/"))}

    def refused(target: str, environ: dict[str, str], reason: str, *arguments: str) -> None:
        before = own_files()
        result = make(project, environ, target, *arguments)
        lines = [line for line in result.stdout.splitlines() if not line.startswith(("make: ", "template: "))]
        assert result.returncode != 0
        assert re.search(reason, lines[-1]), result.stdout
        assert len(lines) == 1 + ("commit this" in reason), result.stdout
        assert own_files() == before

    for target in ("compare", "update"):
        refused(target, unreachable, "fatal: unable to access")
        refused(target, environ, r"^9\.9: the template has no such version", "VERSION=9.9")
    record = project / ".cruft.json"
    recorded = record.read_text()
    record.write_text(re.sub("[0-9a-f]{40}", "f" * 40, recorded))
    refused("update", environ, "commit this, or stash it")
    commit_all(project, "Another commit")
    refused("compare", environ, "^f{40}: the template has no such version")
    for broken in (recorded.replace(ADDRESS, ""), "{}"):
        record.write_text(broken)
        commit_all(project, "No address")
        refused("compare", environ, r"^\.cruft\.json in the last commit: expected the template's address")
    record.unlink()
    commit_all(project, "No record")
    refused("compare", environ, r"^\.cruft\.json in the last commit: expected the template's address")
    record.write_text(recorded)
    commit_all(project, "Ours again")
    # What git ignores, it would overwrite.
    with (project / ".git/info/exclude").open("a") as exclude:
        exclude.write("NEW.md\n")
    (project / "NEW.md").write_text("ours\n")
    source = template / PROJECT
    (source / "NEW.md").write_text("theirs\n")
    replace(source / "manifest.txt", "Makefile\n", "Makefile\nNEW.md\n")
    commit_all(template, "New")
    refused("update", environ, r"^NEW\.md: new in the template, and git does not know yours")
    assert run_in(project, ".venv/bin/python", "main.py", "db", "downgrade", "accounts@base").returncode == 0
    refused("update", environ, "main.py db upgrade")


def release(template: Path, version: str) -> None:
    """Commit and tag a version that asks for something."""
    pyproject, changelog = template / "pyproject.toml", template / "CHANGELOG.md"
    pyproject.write_text(re.sub('(?m)^version = ".*"', f'version = "{version}"', pyproject.read_text()))
    tasks = f"### What a project must do\n\nFeed the {version} cat.\n\n### What is new\n\nAll.\n"
    changelog.write_text(
        re.sub("(?m)^## ", f"## {version} (2027-01-01)\n\n{tasks}\n## ", changelog.read_text(), count=1)
    )
    commit_all(template, version)
    git(template, "tag", version)


@pytest.mark.long
@pytest.mark.skipif(EXAMPLE != "blog", reason="cookiecutter.json does not offer example=blog")
def test_a_team_follows_two_versions_and_loses_nothing(template: Path, project: Path, environ: dict[str, str]) -> None:
    python, requirements = project / ".venv/bin/python", ("requirements.txt", "requirements-dev.txt")
    page, tests = "app/templates/index.html", "tests/unit/test_csv_files.py"

    # The team's own: all of it before the first commit, so that its history does not hold the template's files.
    for words in (["feature", "NAME=bookmarks"], ["remove-feature", "NAME=blog", "ARGS=--yes"]):
        assert make(project, environ, *words).returncode == 0
    assert run_in(project, python, "main.py", "db", "upgrade").returncode == 0
    replace(project / page, "<p>It runs.", "<p>Our page runs.")
    replace(project / tests, '"""', '"""Our ', count=1)
    replace(project / "config/web.ini", "threads = 4", "threads = 7")
    for name in requirements:
        pin(project / name, "8.0.0")
    (project / "local.mk").write_text("ours: ## Our own target\n\t@echo our target\n")
    commit_all(project, "Ours")
    with sqlite3.connect(project / "instance/data/app.sqlite3") as database:
        database.executescript(INSERT)

    # A version that touches other lines, and one that touches the same ones.
    source = template / PROJECT
    revision, model = source / "database/versions/infrastructure/0003_note.py", source / "app/transfers.py"
    revision.write_text(REVISION)
    replace(model, "    done: M", "    note: Mapped[str | None] = mapped_column(String(10))\n    done: M")
    (source / "tests/unit/blog").mkdir()
    (source / "tests/unit/blog/test_new.py").write_text("def test_new() -> None:\n    assert True\n")
    with (source / "manifest.txt").open("a") as manifest:
        manifest.write(f"{revision.relative_to(source)}\ntests/unit/blog/test_new.py example=blog\n")
    replace(source / "config/web.ini", "reload = false", "reload = true")
    release(template, "90.2.0")
    replace(source / page, "<p>It runs.", "<p>It walks.")
    replace(source / page, "{% block main %}", "{% block main %}{# new #}")
    for name in requirements:
        pin(source / name, "9.0.0")
    (source / tests).unlink()
    replace(source / "manifest.txt", f"{tests}\n", "")
    release(template, "90.3.0")

    compared = make(project, environ, "compare")
    assert compared.returncode != 0
    ours, new = compared.stdout.split("new in the template")
    assert re.findall(r"(?m)^ (\S+) +\|", ours) == [
        "README.md", page, "config/web.ini", *sorted(requirements), tests,
    ]  # fmt: skip
    assert "6 files changed" in ours
    assert re.findall("Feed the (.*) cat", ours) == ["90.3.0", "90.2.0"]
    assert "0003_note.py" in new
    assert "blog" not in new

    updated = make(project, environ, "update", "VERSION=90.2.0")
    assert updated.returncode == 0, updated.stdout
    assert re.search(r"(?m)^template: \S+ \(.{7}\) -> 90.2.0 \(.{7}\)$", updated.stdout)
    assert re.findall("Feed the (.*) cat", updated.stdout) == ["90.2.0"]
    assert "0003_note (infrastructure) (head)" in updated.stdout
    assert "threads = 7" in (project / "config/web.ini").read_text()
    assert "reload = true" in (project / "config/web.ini").read_text()
    assert not (project / "tests/unit/blog").exists()
    commit_all(project, "90.2.0")

    conflicting = make(project, environ, "update")
    assert conflicting.returncode != 0
    listed = conflicting.stdout.split("conflicts: ")[1].splitlines()[1:5]
    assert listed == [page, *sorted(requirements), tests]
    text = (project / page).read_text()
    assert "{% block main %}{# new #}\n" in text
    assert re.search(r"(?s)^<<<<<<< .*^<p>Our page runs.*^=======\n.*^<p>It walks.*^>>>>>>> ", text, re.MULTILINE)
    assert '"""Our ' in (project / tests).read_text()
    # As it says: pins of the template first, and the others by hand.
    git(project, "checkout", "--theirs", *requirements, page)
    commit_all(project, "90.3.0")
    assert "click==9.0.0 " in (project / "requirements.txt").read_text()
    recorded = json.loads((project / ".cruft.json").read_text())
    assert (recorded["template"], recorded["commit"]) == (ADDRESS, git(template, "rev-parse", "HEAD").strip())
    assert "our target" in make(project, environ, "ours").stdout
    assert "make ours" in make(project, environ, "help").stdout

    passed = run_in(project, python, "-m", "pytest", "-q", *TESTS)
    assert passed.returncode == 0, passed.stdout
    with sqlite3.connect(project / "instance/data/app.sqlite3") as database:
        query = "SELECT username, note, title FROM user_account, transfer, bookmark"
        assert database.execute(query).fetchall() == [("ada", None, "kept")]


def pin(requirements: Path, version: str) -> None:
    """Give another version of click."""
    requirements.write_text(re.sub("(?m)^click==.* ", f"click=={version} ", requirements.read_text()))


def test_the_changelog_says_for_each_version_what_a_project_must_do() -> None:
    version = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]["version"]
    sections = re.split("(?m)^## ", (TEMPLATE / "CHANGELOG.md").read_text())[1:]

    # `make update` prints those parts that stand above the heading of the version that it comes from.
    assert version in [section.split()[0] for section in sections[:2]]
    for section in sections:
        assert re.match(r"\d+\.\d+\.\d+ \((20\d\d-\d\d-\d\d|not yet released)\)\n", section)
        assert re.search(r"(?m)^### What a project must do\n\n\w", section), section.splitlines()[0]
