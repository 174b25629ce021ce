"""Each kind of fault that a change to the template may bring into its output is found, with file and line."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from baking import run_in

Plant = Callable[[Path], object]


def write(name: str, text: str) -> Plant:
    """A fault: a file with this content."""

    def plant(project: Path) -> None:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)

    return plant


def append(name: str, text: str) -> Plant:
    """A fault: this text at a file's end."""
    return lambda project: (project / name).write_text((project / name).read_text() + text)


def replace(name: str, old: str, new: str) -> Plant:
    """A fault: one text for another."""

    def plant(project: Path) -> None:
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new))

    return plant


# What is found in one look at all files; each with a part of what is said of it.
FAULTS: list[tuple[Plant, str]] = [
    (append("app/pages.py", "\ndef (:\n"), "app/pages.py:"),
    (append("web.py", "\nreturn 1\n"), "does not compile: 'return' outside function"),
    (append("ruff.toml", "\n[broken\n"), "ruff.toml: does not parse"),
    (write("config/logging.json", "{"), "config/logging.json: does not parse"),
    (append("config/queue.yaml", "a: b: c\n"), "config/queue.yaml: does not parse"),
    (append("config/web.ini", "no value\n"), "config/web.ini: does not parse"),
    (append("queues.py", "# {{ cookiecutter.slug }}\n"), "a template tag is left over"),
    (write("app/pages.pyc", "x"), "app/pages.pyc: not in the manifest"),
    (write(".ruff_cache/0", "x"), ".ruff_cache/: not in the manifest"),
    (write("notes.txt", "x"), "notes.txt: not in the manifest"),
    (lambda project: (project / "docs/queue.md").unlink(), "docs/queue.md: missing"),
    (append("scheduler.py", "import app.shop\n"), "scheduler.py:{last}: no module app.shop"),
    (append("main.py", "from storage import Cupboard\n"), "main.py:{last}: no Cupboard in storage"),
    (
        append(".env.example", "SECRET_KEY=Zk3vQ9x7Lw2bT8mR4yN6cF1hJ5dS0aPe\n"),
        ".env.example:{last}: looks like a secret",
    ),
    (append("gunicorn.conf.py", "# -----BEGIN RSA PRIVATE KEY-----\n"), "gunicorn.conf.py:{last}: looks like a secret"),
    (write("app/blog/forms.py", ""), "app/blog/forms.py: empty"),
    (lambda project: (project / "Makefile").write_bytes(b"\xff\xfe"), "Makefile: not UTF-8"),
]
# Settings are compared with their types once all files parse.
WRONG_SETTINGS: list[tuple[Plant, str]] = [
    (append("config/queue.yaml", "colour: red\n"), "config/queue.yaml: queue.colour: unknown key"),
    (replace("config/queue.yaml", "threads: 8", "threads: many"), "queue.threads: found 'many', expected int"),
    (replace("config/web.ini", "workers = 2", "workers = two"), "web.workers: found 'two', expected int"),
    (replace("config/database.yaml", "url:", "address:"), "database.url: missing"),
    (write("config/testing/shop.yaml", "a: b"), "config/testing/shop.yaml: shop is no section"),
    (append("manifest.txt", "config/testing/shop.yaml\n"), ""),
]


def generate(template: Path) -> tuple[int, str]:
    """Exit code and output of Cookiecutter with the default answers."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-o", str(template.parent / "out")]
    result = run_in(template.parent, *command)
    return result.returncode, result.stdout


@pytest.mark.parametrize("faults", [FAULTS, WRONG_SETTINGS], ids=["files", "settings"])
def test_planted_faults_are_found(template_copy: Path, faults: list[tuple[Plant, str]]) -> None:
    project = template_copy / "{{cookiecutter.project_slug}}"
    for plant, _ in faults:
        plant(project)

    code, output = generate(template_copy)

    assert code == 1
    for _, finding in faults:
        path = project / finding.partition(":")[0]
        last = len(path.read_text().splitlines()) if "{last}" in finding else 0
        assert finding.format(last=last) in output
    assert "Traceback" not in output.split("Stopping generation")[0]
    assert not (template_copy.parent / "out/my_service").exists()
