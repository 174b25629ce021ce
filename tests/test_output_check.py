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


FAULTS: dict[str, tuple[Plant, str]] = {
    "does not compile": (append("app/pages.py", "\ndef (:\n"), "app/pages.py:"),
    "return outside of a function": (append("web.py", "\nreturn 1\n"), "does not compile"),
    "broken toml": (append("ruff.toml", "\n[broken\n"), "ruff.toml: does not parse"),
    "broken json": (write("config/logging.json", "{"), "config/logging.json: does not parse"),
    "broken yaml": (append("config/queue.yaml", "a: b: c\n"), "config/queue.yaml: does not parse"),
    "broken ini": (append("config/web.ini", "no value\n"), "config/web.ini: does not parse"),
    "template tag left over": (append("queues.py", "# {{ cookiecutter.slug }}\n"), "a template tag is left over"),
    "byte-code": (write("app/pages.pyc", "x"), "app/pages.pyc: not in the manifest"),
    "cache": (
        write(".ruff_cache/0", "x"),
        ".ruff_cache/: not in the manifest",
    ),
    "stray file": (write("notes.txt", "x"), "notes.txt: not in the manifest"),
    "missing file": (lambda project: (project / "storage/memory.py").unlink(), "storage/memory.py: missing"),
    "import of a missing module": (append("web.py", "import app.shop\n"), "no module app.shop"),
    "import of a missing name": (append("web.py", "from storage import Cupboard\n"), "no Cupboard in storage"),
    "unknown setting": (append("config/queue.yaml", "colour: red\n"), "config/queue.yaml: queue.colour: unknown key"),
    "missing setting": (replace("config/queue.yaml", "threads: 8", ""), "queue.threads: missing"),
    "setting of a wrong type": (
        replace("config/queue.yaml", "threads: 8", "threads: many"),
        "queue.threads: found 'many', expected int",
    ),
    "ini setting of a wrong type": (
        replace("config/web.ini", "workers = 2", "workers = two"),
        "web.workers: found 'two', expected int",
    ),
    "unknown section": (
        lambda project: (project / "config/storage.yaml").rename(project / "config/testing/shop.yaml"),
        "config/testing/shop.yaml",
    ),
    "secret": (append(".env.example", "SECRET_KEY=Zk3vQ9x7Lw2bT8mR4yN6cF1hJ5dS0aPe\n"), "looks like a secret"),
    "private key": (append("web.py", "# -----BEGIN RSA PRIVATE KEY-----\n"), "looks like a secret"),
    "empty file": (write("storage/__init__.py", ""), "storage/__init__.py: empty"),
    "executable bit without shebang": (lambda project: (project / "web.py").chmod(0o755), "web.py: the executable bit"),
    "shebang without executable bit": (
        replace("web.py", '"""WSGI', '#!/usr/bin/env python3\n"""WSGI'),
        "web.py: the executable",
    ),
    "not text": (lambda project: (project / "Makefile").write_bytes(b"\xff\xfe"), "Makefile: not UTF-8"),
}


def generate(template: Path) -> tuple[int, str]:
    """Exit code and output of Cookiecutter with the default answers."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-o", str(template.parent / "out")]
    result = run_in(template.parent, *command)
    return result.returncode, result.stdout


@pytest.mark.parametrize(("plant", "finding"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(template_copy: Path, plant: Plant, finding: str) -> None:
    plant(template_copy / "{{cookiecutter.project_slug}}")

    code, output = generate(template_copy)

    assert code == 1
    assert finding in output
    assert "Traceback" not in output.split("Stopping generation")[0]
    assert not (template_copy.parent / "out/my_service").exists()


def test_without_a_fault_the_check_passes(template_copy: Path) -> None:
    code, output = generate(template_copy)

    assert code == 0, output
    assert "all checked" in output
