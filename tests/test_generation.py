"""What comes out of the template: for every set of answers, for hostile ones, twice the same, over an older project."""

import itertools
import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from baking import EXAMPLES, PROJECT_VENV, TEMPLATE, Bake, files_of, run_in

PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
OPTIONS = ("license", "example", "ci")
OPTION_SETS = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*(ANSWERS[o] for o in OPTIONS))]
HOSTILE = [
    "O'Brien",
    'says "hi"',
    "back\\slash",
    "100 % sure",
    "#1 of all",
    "key: value",
    "party 🎉 Zoë",
    "<script>alert(1)</script>",
    "{x} $HOME $(id) `id`",
    "*bold* _it_ [link](x) | cell",
    "- item",
    "yes",
    "0123",
    "& &amp; !tag @at",
    "~~~",
    "1. first",
]

CHOSEN = {
    "project_name": "Zoë's Shop",
    "project_slug": "shop",
    "license": "Proprietary",
    "example": "none",
    "ci": "gitlab",
}
SHOW_LOGIN = """
import json, sys, app, config
settings = config.load({"APP_ENV": "testing", "APP_DIR": sys.argv[1]})
html = app.create_app(settings).test_client().get("/login").text
print(json.dumps([settings.app.name, settings.app.description, html]))
"""


@pytest.mark.parametrize("options", OPTION_SETS, ids=lambda options: "-".join(options.values()))
def test_every_option_set_is_formatted_linted_and_licensed(bake: Bake, options: dict[str, str]) -> None:
    project = bake(**options)

    assert run_in(project, PROJECT_VENV / "bin/ruff", "format", "--no-cache", "--check", ".").returncode == 0
    lint = run_in(project, PROJECT_VENV / "bin/ruff", "check", "--no-cache", ".")
    assert lint.returncode == 0, lint.stdout
    assert (project / ".github").exists() == (options["ci"] == "github")
    assert (project / ".gitlab-ci.yml").exists() == (options["ci"] == "gitlab")
    assert (project / "app/blog").exists() == (options["example"] == "blog")
    assert "Your Name <you@example.com>" in (project / "LICENSE").read_text()
    assert options["license"] in (project / "README.md").read_text()


def test_code_depends_on_the_example_alone(bake: Bake) -> None:
    """So types, architecture and tests need to be checked once for each example."""
    seen: dict[str, set[str]] = {example: set() for example in EXAMPLES}
    for options in OPTION_SETS:
        files = files_of(bake(**options))
        code = {
            name: file for name, file in files.items() if name not in ("LICENSE", "README.md") and "ci.yml" not in name
        }
        seen[options["example"]].add(repr(sorted(code.items())))
    assert [len(variants) for variants in seen.values()] == [1, 1]


def test_two_bakes_are_byte_identical(bake: Bake) -> None:
    assert files_of(bake()) == files_of(bake())


def test_replaying_answers_gives_the_same_bytes(bake: Bake, tmp_path: Path) -> None:
    project = bake(**CHOSEN)
    replay = tmp_path / "answers.json"
    replay.write_text(json.dumps({"cookiecutter": {**ANSWERS, **CHOSEN}}))

    options = ["--replay-file", str(replay), "-o", "replayed"]
    result = run_in(tmp_path, sys.executable, "-m", "cookiecutter", TEMPLATE, *options)

    assert result.returncode == 0, result.stdout
    assert files_of(tmp_path / "replayed" / project.name) == files_of(project)


def test_generating_over_a_project_keeps_the_users_own_files(bake: Bake) -> None:
    project = bake()
    own = project / "app/shop/views.py"
    own.parent.mkdir()
    own.write_text('"""Mine."""\n')
    changed = project / "storage/memory.py"
    changed.write_text("broken")
    (project / "instance").mkdir()
    (project / "instance/.env").write_text("SECRET_KEY=mine\n")
    (project / "web.py").write_text("broken")

    result = run_in(
        project.parent, sys.executable, "-m", "cookiecutter", TEMPLATE, "--no-input", "--overwrite-if-exists"
    )

    assert result.returncode == 0, result.stdout
    assert own.read_text() == '"""Mine."""\n'
    assert (project / "instance/.env").read_text() == "SECRET_KEY=mine\n"
    for path in (project / "web.py", changed):
        assert path.read_text() == (PROJECT / path.relative_to(project)).read_text()
    assert not (project / ".regenerating").exists()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_arrive_unchanged_and_harmless(bake: Bake, text: str) -> None:
    project = bake(
        project_name=text,
        project_slug="shop",
        description=text,
        author=f"{text.replace('<', '').replace('>', '')} <a@b.c>",
    )

    result = run_in(project, PROJECT_VENV / "bin/python", "-c", SHOW_LOGIN, project.parent / "instance")
    name, description, html = json.loads(result.stdout.splitlines()[-1])

    assert [name, description] == [text, text]
    assert "<script>" not in html
    readme = (project / "README.md").read_text().split("## Start")[0]
    assert "<script>" not in readme
    assert yaml.safe_load((project / "config/app.yaml").read_text())["name"] == text


def test_nearly_nothing_is_rendered() -> None:
    copied = ANSWERS["_copy_without_render"]
    rendered = [
        path
        for path in project_files()
        if not any(fnmatch(path, pattern) or path.startswith(f"{pattern}/") for pattern in copied)
    ]
    assert sorted(rendered) == ["LICENSE", "README.md", "config/app.yaml", "pyproject.toml"]


def test_python_files_hold_no_template_tags() -> None:
    tagged = [
        path
        for path in project_files()
        if path.endswith(".py") and re.search(r"\{%|\{\{ *cookiecutter", (PROJECT / path).read_text())
    ]
    assert tagged == []


def project_files() -> list[str]:
    """The template's files, as git knows them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "."]
    names = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (PROJECT / name).exists()]


def test_generating_over_a_project_keeps_own_files_where_an_option_would_have_some(bake: Bake) -> None:
    project = bake(example="none", ci="none")
    own = [project / path for path in (".github/workflows/ci.yml", ".gitlab-ci.yml", "app/blog/views.py", "notes.txt")]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")

    options = ["--no-input", "--overwrite-if-exists", "example=none", "ci=none"]
    result = run_in(project.parent, sys.executable, "-m", "cookiecutter", TEMPLATE, *options)

    assert result.returncode == 0, result.stdout
    assert [path.read_text() for path in own] == ["mine"] * 4
    assert not (project / "app/blog/models.py").exists()


def test_generating_over_a_project_drops_what_is_no_longer_chosen(bake: Bake) -> None:
    project = bake()

    options = ["--no-input", "--overwrite-if-exists", "example=none", "ci=none"]
    result = run_in(project.parent, sys.executable, "-m", "cookiecutter", TEMPLATE, *options)

    assert result.returncode == 0, result.stdout
    assert files_of(project) == files_of(bake(example="none", ci="none"))


def test_a_run_that_did_not_finish_is_not_run_over(bake: Bake) -> None:
    project = bake()
    (project / ".regenerating/app").mkdir(parents=True)
    (project / ".regenerating/app/mine.py").write_text("kept")

    options = ["--no-input", "--overwrite-if-exists"]
    result = run_in(project.parent, sys.executable, "-m", "cookiecutter", TEMPLATE, *options)

    assert result.returncode == 1
    assert ".regenerating: left by a run that did not finish" in result.stdout
    assert (project / ".regenerating/app/mine.py").read_text() == "kept"
    assert (project / "app/__init__.py").exists()
