"""The README's commands work as they are printed, and what its tables and links name is there."""

import re

from baking import CHOICES, QUESTIONS, TEMPLATE, commands_of, run_in

README = (TEMPLATE / "README.md").read_text()


def test_the_readme_commands_work_as_printed() -> None:
    commands = commands_of(TEMPLATE / "README.md")
    assert set(commands) == {"make demo", "make demo ARGS=--check", "make", "make test"}

    # `make test` runs this very test, and `make demo` is the one that checks without its end.
    for command in ("make demo ARGS=--check", "make"):
        result = run_in(TEMPLATE, *command.split())
        assert result.returncode == 0, result.stdout[-3000:]


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*TEMPLATE.glob("*.md"), *TEMPLATE.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_each_promise_names_its_test() -> None:
    links = re.findall(r"\[([^]]+)\]\(([^)]*/test_\w+\.py)\)", README)
    assert len(links) > 20
    for words, path in links:
        assert f"def test_{words.replace(' ', '_')}(" in (TEMPLATE / path).read_text(), f"README.md: {words}: {path}"


def test_the_table_of_answers_has_each_question_with_its_choices() -> None:
    table = dict(re.findall(r"(?m)^\| `(\w+)` \| ([^|]*) \|", README))
    assert table.keys() == QUESTIONS.keys(), "README.md, the table of answers"
    for name, choices in CHOICES.items():
        assert re.findall("`(.+?)`", table[name]) == choices, f"README.md, the table of answers: {name}"
