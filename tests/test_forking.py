"""What docs/forking.md says is applied to a copy of the template, as it is printed, and the copy's quick tests pass."""

import re
import sys
from pathlib import Path

from baking import PROJECT_VENV, TEMPLATE, files_of, run_in

# A block, and the file that is named right before it.
BLOCK = r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```\n"
STATIC = "{{cookiecutter.project_slug}}/app/static"
BINARY = {"logo.png": b"\x89PNG\r\n\x1a\n\0\xff{{ cookiecutter.slug }}", "font.woff2": b"wOF2\0\1\0\0\xff{{"}


def apply(page: Path, template: Path) -> None:
    """Do what all blocks of the page say, one after the other."""
    path = ""
    for named, kind, text in re.findall(BLOCK, page.read_text(), re.DOTALL | re.MULTILINE):
        path = named or path
        if kind == "sh":
            succeed(template, "sh", "-euc", text)
        elif kind == "diff":
            edit(template / path, text.splitlines(keepends=True))
        else:
            (template / path).parent.mkdir(parents=True, exist_ok=True)
            (template / path).write_text(text)


def edit(path: Path, lines: list[str]) -> None:
    """Take out the lines with `-`, put in those with `+`, beside those that are there; `…` is any text."""
    old = "".join(f"({re.escape(line[1:]).replace('…', '.*')})" for line in lines if line[0] != "+")
    text = path.read_text()
    found = re.search(f"^{old}", text, re.MULTILINE)
    assert found, f"{path.name}: not found, but named in docs/forking.md: {''.join(lines)}"
    there, new = iter(found.groups()), ""
    for line in lines:
        kept = line[1:] if line[0] == "+" else next(there)
        new += kept if line[0] != "-" else ""
    path.write_text(text[: found.start()] + new + text[found.end() :])


def add_pictures(template: Path) -> None:
    """What is no text may hold anything, and is copied as it is."""
    manifest = template / "{{cookiecutter.project_slug}}/manifest.txt"
    for name, content in BINARY.items():
        (template / STATIC / name).write_bytes(content)
        manifest.write_text(f"{manifest.read_text()}app/static/{name}\n")


def succeed(folder: Path, *command: str | Path) -> None:
    """Run a command that has to succeed."""
    result = run_in(folder, *command)
    assert result.returncode == 0, result.stdout


def bake(template: Path, *answers: str) -> Path:
    """What the template makes of its own defaults and these answers."""
    folder = template.parent / f"out{len(list(template.parent.iterdir()))}"
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-o", str(folder)]
    succeed(template.parent, *command, *answers)
    [project] = folder.iterdir()
    return project


def test_each_step_does_what_the_page_says_and_leaves_the_quick_tests_green(template_copy: Path) -> None:
    for name in (".venv", ".venv-project"):
        (template_copy / name).symlink_to(TEMPLATE / name)
    apply(template_copy / "docs/forking.md", template_copy)
    add_pictures(template_copy)
    # The tests ask git which files there are.
    (template_copy / ".gitignore").write_text("/.venv*\n__pycache__/\n")
    assert run_in(template_copy, "git", "init", "--quiet").returncode == 0

    texts = {path: content.decode(errors="replace") for path, (content, _) in files_of(bake(template_copy)).items()}
    other = bake(template_copy, "editor=none")

    # Renamed, with other defaults, one more question, one more option, one more feature, no blog, and other licenses.
    assert "cookiecutter-flask-service" not in (template_copy / "README.md").read_text()
    assert "# Acme Portal" in texts["README.md"]
    assert "write to ops@example.com." in texts["README.md"]
    assert {".vscode/settings.json", "app/hello/__init__.py", "deploy/Containerfile"} < texts.keys()
    assert not (other / ".vscode").exists()
    assert not [path for path in texts if "blog" in path]
    assert "Copyright (c) Acme <dev@acme.example>\n\nEverybody at Acme" in texts["LICENSE"]
    assert {name: (other / "app/static" / name).read_bytes() for name in BINARY} == BINARY

    quick = ["tests/test_answers.py", "tests/test_generation.py", "-k", "not slug and not hostile"]
    feature = ["tests/integration/hello", "tests/unit/test_features.py"]
    succeed(template_copy, template_copy / ".venv/bin/python", "-m", "pytest", "-q", *quick)
    succeed(
        template_copy, template_copy / ".venv/bin/ruff", "check", "--no-cache", "--extend-exclude=pyproject.toml", "."
    )
    succeed(other, PROJECT_VENV / "bin/python", "-m", "pytest", "-q", *feature)
    succeed(other, PROJECT_VENV / "bin/lint-imports", "--no-cache")
