"""Bad answers are refused, all of them at once, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import TEMPLATE
from cookiecutter.exceptions import CookiecutterException
from cookiecutter.main import cookiecutter

Generate = Callable[..., tuple[bool, str]]

SLUGS = ["", "a", "1abc", "_abc", "abc_", "My-App", "my-app", "my app", "Shop", "café", "a" * 41, "shop\n", "-x", "a.b"]
SLUGS += ["../x", "a/b", ".", "..", "class", "match", "json", "app", "config", "tests", "web"]
TEXTS = {
    "project_name": ["   ", "two\nlines", "bell\a", "x" * 81, "line\u2028separator", "{% raw %}", "{{ x }}", "${HOME}"],
    "description": ["tab\there", "x" * 201, "nul\0"],
    "author": ["Nobody", "Name <not an address>", "<a@b.c>", "Name <a@b.c> ", "Name <a@b.c>\n"],
    "license": ["GPL"],
    "example": ["shop"],
    "deploy": ["ftp"],
    "ci": ["jenkins"],
}
GOOD = {
    "project_name": "Shop",
    "project_slug": "shop",
    "description": "Sells.",
    "author": "Zoë <z@example.org>",
    "license": "MIT",
    "example": "blog",
    "deploy": "systemd",
    "ci": "github",
}
ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())


@pytest.fixture
def generate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Generate:
    """Runs Cookiecutter with all answers as they are; says whether it generated a project, and what was printed."""

    def generate(**answers: str) -> tuple[bool, str]:
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


def test_there_are_at_most_eight_prompts_and_each_is_a_sentence() -> None:
    prompts = [name for name in ANSWERS if not name.startswith("_")]
    assert len(prompts) <= 8
    for name in prompts:
        prompt = ANSWERS["__prompts__"][name]
        assert (prompt if isinstance(prompt, str) else prompt["__prompt__"]).endswith("?")
