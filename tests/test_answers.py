"""Bad answers are refused, all of them at once, and nothing is written."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from baking import PROJECT_VENV, TEMPLATE, run_in
from cookiecutter.exceptions import CookiecutterException
from cookiecutter.main import cookiecutter
from cookiecutter.utils import create_env_with_context, work_in

Generate = Callable[..., tuple[bool, str]]

SLUGS = ["", "a", "1abc", "_abc", "abc_", "My-App", "my-app", "my app", "Shop", "café", "a" * 41, "shop\n", "-x", "a.b"]
SLUGS += ["../x", "a/b", ".", "..", "class", "match", "json", "app", "config", "tests", "web", "shop_"]
SLUGS += ["flask", "yaml", "click", "flask_login", "git", "ssh", "users", "type"]
TEXTS = {
    "project_name": ["   ", "two\nlines", "bell\a", "x" * 81, "line\u2028separator", "{% raw %}", "{{ x }}", "${HOME}"],
    "description": ["tab\there", "x" * 201, "nul\0"],
    "author": ["Nobody", "Name <not an address>", "<a@b.c>", "Name <a@b.c> ", "Name <a@b.c>\n"],
}
ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())
CHOICES = {name: values for name, values in ANSWERS.items() if isinstance(values, list) and not name.startswith("_")}
TEXTS |= {name: ["of another kind"] for name in CHOICES}
GOOD = {
    name: CHOICES[name][0] if name in CHOICES else text for name, text in ANSWERS.items() if not name.startswith("_")
}
GOOD |= {"project_slug": "shop", "author": "Zoë <z@example.org>"}


@pytest.fixture
def generate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Generate:
    """Runs Cookiecutter with all answers as they are; says whether it generated a project, and what was printed."""

    def generate(**answers: object) -> tuple[bool, str]:
        private = {name: value for name, value in ANSWERS.items() if name.startswith("_")}
        replay = tmp_path / "answers.json"
        replay.write_text(json.dumps({"cookiecutter": {**GOOD, **answers, **private}}))
        try:
            cookiecutter(str(TEMPLATE), replay=str(replay), output_dir=str(tmp_path / "out"))
        except CookiecutterException:
            return False, capfd.readouterr().err
        return True, capfd.readouterr().err

    return generate


@pytest.mark.parametrize("slug", SLUGS, ids=repr)
def test_a_bad_slug_is_refused(tmp_path: Path, generate: Generate, slug: str) -> None:
    generated, output = generate(project_slug=slug)

    assert not generated
    assert not list((tmp_path / "out").glob("**/*.py"))
    if slug.strip("./"):
        assert f"project_slug: {json.dumps(slug, ensure_ascii=not slug.isprintable())} " in output


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts], ids=repr)
def test_a_bad_text_is_refused(tmp_path: Path, generate: Generate, name: str, text: str) -> None:
    generated, output = generate(**{name: text})

    assert not generated
    assert f"{name}: {json.dumps(text, ensure_ascii=not text.isprintable())} " in output
    assert not (tmp_path / "out/shop").exists()


def test_all_bad_answers_are_named_at_once(tmp_path: Path, generate: Generate) -> None:
    generated, output = generate(project_slug="class", author="me", ci="jenkins", description=" ")

    assert not generated
    assert [line.split(":")[0] for line in output.splitlines()] == ["project_slug", "description", "author", "ci"]
    assert not (tmp_path / "out/shop").exists()


def test_good_answers_pass(tmp_path: Path, generate: Generate) -> None:
    generated, output = generate()

    assert generated, output
    assert (tmp_path / "out/shop/main.py").exists()


def test_each_prompt_is_a_question() -> None:
    for name in (name for name in ANSWERS if not name.startswith("_")):
        prompt = ANSWERS["__prompts__"][name]
        assert (prompt if isinstance(prompt, str) else prompt["__prompt__"]).endswith("?")


@pytest.mark.parametrize("value", [True, 17, None, ["a"]], ids=repr)
def test_what_is_no_text_is_refused(generate: Generate, value: object) -> None:
    generated, output = generate(description=value)

    assert not generated
    assert output.splitlines()[0] == f"description: {json.dumps(value)} expected text"


def rendered_hook(answers: dict[str, str]) -> str:
    """The hook as Cookiecutter runs it."""
    context = {"cookiecutter": answers}
    source = (TEMPLATE / "hooks/pre_gen_project.py").read_text()
    with work_in(TEMPLATE):
        return str(create_env_with_context(context).from_string(source).render(**context))


def test_no_module_of_a_package_that_the_project_uses_is_a_slug() -> None:
    """Where this fails after a new dependency, add the module's name to MODULES in hooks/pre_gen_project.py."""
    show = "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    modules = json.loads(run_in(TEMPLATE, PROJECT_VENV / "bin/python", "-c", show).stdout)
    requirements = (TEMPLATE / "{{cookiecutter.project_slug}}/requirements-dev.txt").read_text()
    pinned = set(re.findall(r"(?m)^([\w.-]+)==", requirements))
    hook: dict[str, Any] = {"__name__": "hook"}
    exec(rendered_hook(GOOD), hook)

    accepted = [
        module
        for module, packages in modules.items()
        if pinned & {re.sub(r"[-_.]+", "-", package.lower()) for package in packages}
        and hook["check_slug"](module) is None
    ]

    assert accepted == []


def test_an_old_cookiecutter_gets_one_line(tmp_path: Path) -> None:
    script = tmp_path / "hook.py"
    script.write_text(rendered_hook(GOOD))

    result = run_in(tmp_path, sys.executable, script)

    assert (result.returncode, result.stdout) == (1, "Cookiecutter is older than 2.2; install a newer one\n")
