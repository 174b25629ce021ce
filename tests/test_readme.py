"""The README's commands work as they are printed."""

import re

from baking import TEMPLATE, commands_of, run_in


def test_the_readme_commands_work_as_printed() -> None:
    commands = commands_of(TEMPLATE / "README.md")
    assert set(commands) == {"make demo", "make demo ARGS=--check", "make", "make test"}

    # `make test` runs this very test, and `make demo` is the one that checks without its end.
    for command in ("make demo ARGS=--check", "make"):
        result = run_in(TEMPLATE, *command.split())
        assert result.returncode == 0, result.stdout[-3000:]


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*TEMPLATE.glob("*.md"), *TEMPLATE.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
