"""What comes out of the template: for every set of answers, for hostile ones, twice the same, over an older project."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from baking import CHOICES, DEFAULTS, EXAMPLES, PROJECT_VENV, TEMPLATE, Bake, files_of, generate, run_in
from output_check import find_faults, find_wrong_settings

PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
# Each file of the project, and the answers that keep it.
MANIFEST = {
    path: set(answers) for path, *answers in map(str.split, (PROJECT / "manifest.txt").read_text().splitlines())
}
ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
# Every combination of the two answers that drop code; the others take turns, until each had one.
PAIRS = list(itertools.product(EXAMPLES, CHOICES.get("deploy", ["none"])))
OPTION_SETS = [
    {name: values[number % len(values)] for name, values in CHOICES.items()}
    | dict(zip(("example", "deploy"), PAIRS[number % len(PAIRS)], strict=True))
    for number in range(max(len(PAIRS), *map(len, CHOICES.values())))
]
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
    ".NET Bridge",
    ") x",
    "...and more",
]

CHOSEN = {name: values[-1] for name, values in CHOICES.items()}
CHOSEN |= {"project_name": "Zoë's Shop", "project_slug": "shop"}
SHOW_LOGIN = """
import json, sys, app, config
settings = config.load({"APP_ENV": "testing", "APP_DIR": sys.argv[1]})
html = app.create_app(settings).test_client().get("/login").text
print(json.dumps([settings.app.name, settings.app.description, html]))
"""


@pytest.fixture(scope="session")
def examples(baked: Bake) -> dict[str, Path]:
    """A project for each value of `example`, with the default answers to all other questions. To be read only."""
    return {example: baked(example=example) for example in EXAMPLES}


@pytest.mark.parametrize("options", OPTION_SETS, ids=lambda options: "-".join(options.values()))
def test_options_choose_whole_files_and_the_license(
    bake: Bake, examples: dict[str, Path], options: dict[str, str]
) -> None:
    project = bake(**options)

    given = {f"{name}={value}" for name, value in options.items()}
    made = files_of(project).keys() - {".cruft.json"}
    assert made == {path for path, needed in MANIFEST.items() if needed <= given}, "manifest.txt"
    for path, answer in (("app/blog", "example=blog"), (".github", "ci=github"), (".gitlab-ci.yml", "ci=gitlab")):
        assert (project / path).exists() == (answer in given), path
    check_license(project, options["license"], DEFAULTS)
    assert options["license"] in (project / "README.md").read_text()
    assert find_faults(project) == []
    # So types, architecture and tests need to be checked once for each example.
    assert code_of(project) == code_of(examples[options["example"]])


def code_of(project: Path) -> dict[str, tuple[bytes, int]]:
    """All files that are the same for all projects with the same example."""
    others = {path for path, needed in MANIFEST.items() if not all(answer.startswith("example=") for answer in needed)}
    others |= {".cruft.json", "LICENSE", "README.md"}
    return {name: file for name, file in files_of(project).items() if name not in others}


def check_license(project: Path, name: str, answers: dict[str, str]) -> None:
    """The project's license is the template's text, with the answers in their places."""
    text = (TEMPLATE / "templates/licenses" / name).read_text()
    expected = re.sub(r"\{\{ *cookiecutter\.(\w+) *\}\}", lambda question: answers[question[1]], text)
    assert (project / "LICENSE").read_text().strip() == expected.strip(), f"templates/licenses/{name}"


def test_the_settings_are_right_in_each_environment(examples: dict[str, Path], tmp_path: Path) -> None:
    assert find_wrong_settings(examples[EXAMPLES[0]], tmp_path) == []


def test_two_bakes_are_byte_identical(examples: dict[str, Path], tmp_path: Path) -> None:
    assert files_of(generate(tmp_path)) == files_of(examples[EXAMPLES[0]])


def test_replaying_answers_gives_the_same_bytes(bake: Bake, tmp_path: Path) -> None:
    project = bake(**CHOSEN)
    replay = tmp_path / "answers.json"
    replay.write_text(json.dumps({"cookiecutter": {**ANSWERS, **DEFAULTS, **CHOSEN}}))

    options = ["--replay-file", str(replay), "-o", "replayed"]
    result = run_in(tmp_path, sys.executable, "-m", "cookiecutter", TEMPLATE, *options)

    assert result.returncode == 0, result.stdout
    assert files_of(tmp_path / "replayed" / project.name) == files_of(project)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_arrive_unchanged(bake: Bake, text: str) -> None:
    author = f"{text.replace('<', '').replace('>', '')} <a@b.c>"
    project = bake(project_name=text, project_slug="shop", description=text, author=author)

    settings = yaml.safe_load((project / "config/app.yaml").read_text())
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert [settings["name"], settings["description"], metadata["description"]] == [text] * 3
    check_license(project, DEFAULTS["license"], DEFAULTS | {"author": author})
    assert "<script>" not in (project / "README.md").read_text().split("## Start")[0]


def test_hostile_texts_are_harmless_in_pages(bake: Bake, tmp_path: Path) -> None:
    text = '<script>alert(1)</script> & "it\'s" {x} $HOME \\'
    project = bake(project_name=text, project_slug="shop", description=text)

    result = run_in(project, PROJECT_VENV / "bin/python", "-c", SHOW_LOGIN, tmp_path)
    assert result.returncode == 0, result.stdout
    name, description, html = json.loads(result.stdout.splitlines()[-1])

    assert [name, description] == [text, text]
    assert "<script>" not in html


def test_nearly_nothing_is_rendered() -> None:
    copied = ANSWERS["_copy_without_render"]
    rendered = [
        path
        for path in project_files()
        if not any(fnmatch(path, pattern) or path.startswith(f"{pattern}/") for pattern in copied)
    ]
    assert sorted(rendered) == ["LICENSE", "README.md", "config/app.yaml", "pyproject.toml"]
    # Cookiecutter deletes such a folder of an existing project before it copies its own.
    folders = {str(folder) for path in project_files() for folder in Path(path).parents}
    assert not [folder for folder in folders for pattern in copied if fnmatch(folder, pattern)]


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


def write_anew(project: Path, *options: str) -> CompletedProcess[str]:
    """Generate over a project."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--overwrite-if-exists", *options]
    return run_in(project.parent, *command)


def test_writing_anew_replaces_the_templates_files_and_keeps_all_others(bake: Bake, examples: dict[str, Path]) -> None:
    project = bake(ci="none")
    own = [project / path for path in ("app/shop/views.py", "instance/.env", "notes.txt", ".github/workflows/ci.yml")]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for name in ("web.py", "storage/storage.py", "README.md"):
        (project / name).write_text("broken")

    result = write_anew(project, "ci=none")

    assert result.returncode == 0, result.stdout
    assert re.findall("replaced, and differed before: (.*)", result.stdout) == [
        "README.md", "storage/storage.py", "web.py",
    ]  # fmt: skip
    for path in own:
        assert path.read_text() == "mine"
        path.unlink()
    assert code_of(project) == code_of(examples[EXAMPLES[0]])


def test_writing_anew_drops_what_is_no_longer_chosen(bake: Bake, examples: dict[str, Path]) -> None:
    project = bake(example="blog")
    (project / "app/blog/views.py").write_text("mine")

    result = write_anew(project, "example=none")

    assert result.returncode == 0, result.stdout
    assert (project / "app/blog/views.py").read_text() == "mine"
    (project / "app/blog/views.py").unlink()
    assert files_of(project) == files_of(examples["none"])


def test_writing_anew_can_skip_every_file_that_exists(bake: Bake, examples: dict[str, Path]) -> None:
    project = bake()
    edited = ("LICENSE", "README.md", "config/app.yaml", "config/queue.yaml", "web.py", "app/pages.py", "docs/queue.md")
    for path in edited:
        (project / path).write_text("mine")
    for path in ("Makefile", "app/errors.py"):
        (project / path).unlink()

    result = write_anew(project, "--skip-if-file-exists")

    assert result.returncode == 0, result.stdout
    files = files_of(project)
    assert {path: files.pop(path)[0] for path in edited} == dict.fromkeys(edited, b"mine")
    assert files == {path: file for path, file in files_of(examples[EXAMPLES[0]]).items() if path not in edited}


def test_without_hooks_writing_anew_keeps_own_files(bake: Bake) -> None:
    project = bake()
    own = project / "app/shop/views.py"
    own.parent.mkdir()
    own.write_text("mine")

    assert write_anew(project, "--accept-hooks", "no").returncode == 0
    assert own.read_text() == "mine"


def test_a_run_that_did_not_finish_is_not_run_over(bake: Bake) -> None:
    project = bake()
    (project / ".regenerating/app").mkdir(parents=True)
    (project / ".regenerating/app/mine.py").write_text("kept")

    result = write_anew(project)

    assert result.returncode == 1
    assert ".regenerating: left by a run that did not finish" in result.stdout
    assert (project / ".regenerating/app/mine.py").read_text() == "kept"
    assert (project / "app/__init__.py").exists()
