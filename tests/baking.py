"""Bakes projects and runs commands in them."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config

TEMPLATE = Path(__file__).resolve().parent.parent
PROJECT_VENV = TEMPLATE / ".venv-project"
# The questions of cookiecutter.json: their choices, and what `--no-input` answers. A fork has its own.
QUESTIONS = {
    name: value
    for name, value in json.loads((TEMPLATE / "cookiecutter.json").read_text()).items()
    if not name.startswith("_")
}
CHOICES = {name: values for name, values in QUESTIONS.items() if isinstance(values, list)}
DEFAULTS = {
    name: answer
    for name, answer in prompt_for_config(generate_context(str(TEMPLATE / "cookiecutter.json")), no_input=True).items()
    if name in QUESTIONS
}
# Without the question, no project has an example.
EXAMPLES = CHOICES.get("example", ["none"])
EXAMPLE = next((example for example in EXAMPLES if example != "none"), "none")

Bake = Callable[..., Path]


def not_offered(answers: Mapping[str, str]) -> list[str]:
    """Which of the answers this template does not have, as a fork may have dropped them; `none` needs no question."""
    options = {name: CHOICES.get(name, ["none"]) for name in answers if name in CHOICES or name not in QUESTIONS}
    return [f"{name}={answers[name]}" for name, values in options.items() if answers[name] not in values]


def generate(folder: Path, template: Path = TEMPLATE, answers: Mapping[str, str] | None = None) -> Path:
    """What `cookiecutter --no-input` makes in a folder; what the hooks find is printed."""
    return Path(cookiecutter(str(template), no_input=True, extra_context=answers, output_dir=str(folder)))


def run_in(
    folder: Path, *command: str | Path, environ: Mapping[str, str] | None = None, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder and return what it printed, standard error included."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**clean_environment(), **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """The environment without what pytest, make, or the developer's own services have put into it."""
    others = ("VIRTUAL_ENV", "PYTEST_", "COV_", "MAKE", "MFLAGS", "APP_", "FLASK_", "GUNICORN_")
    # ARGS is for the template's own make.
    services = ("ARGS", "SECRET_KEY", "DATABASE_URL", "QUEUE_URL", "STORAGE_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(others) and name not in services}


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def commands_of(readme: Path) -> list[str]:
    """The lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


def replace(path: Path, old: str, new: str, count: int = -1) -> None:
    """Put one text in the place of another, which has to be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))
