"""Bad answers are refused, all of them at once, and nothing is written."""

import json
import sys
from pathlib import Path

import pytest
from baking import TEMPLATE, run_in

SLUGS = ["", "a", "1abc", "_abc", "My-App", "my-app", "my app", "Shop", "café", "a" * 41, "shop\n", "-x", "a.b"]
SLUGS += ["../x", "a/b", ".", "..", "class", "match", "json", "app", "config", "tests", "web"]
TEXTS = {
    "project_name": ["   ", "two\nlines", "bell\a", "x" * 81, "line\u2028separator", "{% raw %}", "{{ x }}", "${HOME}"],
    "description": ["tab\there", "x" * 201, "nul\0"],
    "author": ["Nobody", "Name <not an address>", "<a@b.c>", "Name <a@b.c> ", "Name <a@b.c>\n"],
    "license": ["GPL"],
    "example": ["shop"],
    "ci": ["jenkins"],
}
GOOD = {
    "project_name": "Shop",
    "project_slug": "shop",
    "description": "Sells.",
    "author": "Zoë <z@example.org>",
    "license": "MIT",
    "example": "blog",
    "ci": "github",
}
ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())


def generate(folder: Path, answers: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of Cookiecutter, given all answers as they are."""
    private = {name: value for name, value in ANSWERS.items() if name.startswith("_")}
    replay = folder / "answers.json"
    replay.write_text(json.dumps({"cookiecutter": {**GOOD, **answers, **private}}))
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        str(TEMPLATE),
        "--replay-file",
        str(replay),
        "-o",
        str(folder / "out"),
    ]
    result = run_in(folder, *command)
    return result.returncode, result.stdout


@pytest.mark.parametrize("slug", SLUGS, ids=repr)
def test_a_bad_slug_is_refused(tmp_path: Path, slug: str) -> None:
    code, output = generate(tmp_path, {"project_slug": slug})

    assert code == 1
    assert not list((tmp_path / "out").glob("**/*.py"))
    if slug.strip("./"):
        assert f"project_slug: {json.dumps(slug, ensure_ascii=not slug.isprintable())} " in output


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts], ids=repr)
def test_a_bad_text_is_refused(tmp_path: Path, name: str, text: str) -> None:
    code, output = generate(tmp_path, {name: text})

    assert code == 1
    assert f"{name}: {json.dumps(text, ensure_ascii=not text.isprintable())} " in output
    assert not (tmp_path / "out/shop").exists()


def test_all_bad_answers_are_named_at_once(tmp_path: Path) -> None:
    code, output = generate(tmp_path, {"project_slug": "class", "author": "me", "ci": "jenkins", "description": " "})

    assert code == 1
    assert [line.split(":")[0] for line in output.splitlines()[:4]] == ["project_slug", "description", "author", "ci"]
    assert "Traceback" not in output.split("ERROR")[0].split("Stopping")[0]
    assert not (tmp_path / "out/shop").exists()


def test_good_answers_pass(tmp_path: Path) -> None:
    code, output = generate(tmp_path, {})

    assert code == 0, output
    assert (tmp_path / "out/shop/main.py").exists()


def test_there_are_at_most_seven_prompts_and_each_is_a_sentence() -> None:
    prompts = [name for name in ANSWERS if not name.startswith("_")]
    assert len(prompts) <= 7
    for name in prompts:
        prompt = ANSWERS["__prompts__"][name]
        assert (prompt if isinstance(prompt, str) else prompt["__prompt__"]).endswith("?")
