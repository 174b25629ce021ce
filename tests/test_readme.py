"""The README's commands work as they are printed."""

import json
import re

from baking import TEMPLATE, commands_of, run_in

ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text())


def test_the_readme_commands_work_as_printed() -> None:
    commands = commands_of(TEMPLATE / "README.md")
    assert set(commands) == {"make demo", "make demo ARGS=--check", "make", "make test"}

    # `make test` runs this very test, and `make demo` is the one that checks without its end.
    for command in ("make demo ARGS=--check", "make"):
        result = run_in(TEMPLATE, *command.split())
        assert result.returncode == 0, result.stdout[-3000:]


def test_the_readme_names_every_choice_of_at_most_eight_questions() -> None:
    text = (TEMPLATE / "README.md").read_text()
    assert len([name for name in ANSWERS if not name.startswith("_")]) <= 8
    for choices in (ANSWERS["license"], ANSWERS["example"], ANSWERS["ci"]):
        assert all(choice in text for choice in choices)


def test_links_between_documents_lead_somewhere() -> None:
    for document in TEMPLATE.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (TEMPLATE / target).exists(), f"{document.name}: {target}"
