"""The project's make targets that change its files, and its set-up on a machine that has no uv."""

import os
import re
import sys
from pathlib import Path
from subprocess import CompletedProcess

from baking import PROJECT_VENV, TEMPLATE, Bake, files_of, replace, run_in

UV = TEMPLATE / ".venv/bin/uv"
# A Python whose environments have Debian 12's pip.
OLD_PYTHON = f"""#!/bin/sh
set -eu
{sys.executable} "$@"
[ "$2" != venv ] || "$3/bin/python" -m pip install -q --disable-pip-version-check pip==23.0.1
"""


def make(project: Path, *arguments: str) -> CompletedProcess[str]:
    """Run make with no uv on the PATH."""
    folders = [folder for folder in os.get_exec_path() if not Path(folder, "uv").exists()]
    # Byte-compiling is most of what pip takes, and not what is tested here.
    return run_in(project, "make", *arguments, environ={"PATH": os.pathsep.join(folders), "PIP_NO_COMPILE": "1"})


def pins(requirements: Path) -> set[tuple[str, str]]:
    """Names and versions."""
    return set(re.findall(r"(?m)^([\w.-]+)==(\S+)", requirements.read_text()))


def test_without_uv_a_package_is_added_and_an_old_pip_sets_up(bake: Bake, tmp_path: Path) -> None:
    project = bake()
    dev, runtime = project / "requirements-dev.txt", project / "requirements.txt"
    dev_before, runtime_before = pins(dev), pins(runtime)
    # Old pips trip over a package that is required with an extra, when there are newer versions of it than the pinned.
    replace(project / "pyproject.toml", '"pytest-cov', '"coverage<7.17",\n    "pytest-cov')
    old_python = tmp_path / "python"
    old_python.write_text(OLD_PYTHON)
    old_python.chmod(0o755)

    added = make(project, "add", "PACKAGE=httpx>=0.28")
    assert added.returncode == 0, added.stdout
    assert '"httpx>=0.28"' in (project / "pyproject.toml").read_text()
    assert {name for name, _ in dev_before - pins(dev)} == {"coverage"}
    assert runtime_before < pins(runtime) < pins(dev)
    assert "httpx" in dict(pins(runtime))

    before = files_of(project)
    assert make(project, "add", "PACKAGE=httpx<0.0.1").returncode != 0
    assert files_of(project) == before

    # Of the other packages, tests/deploy lets such a pip install those that the service needs.
    entries = re.split(r"(?m)^(?=\w)", dev.read_text())
    dev.write_text("".join(entry for entry in entries if entry.startswith(("coverage", "httpx", "pytest-cov"))))
    installed = make(project, ".venv/ready", f"PYTHON={old_python}")
    assert installed.returncode == 0, installed.stdout
    listed = run_in(project, ".venv/bin/python", "-m", "pip", "list").stdout
    for package in ("pip +23.0.1", "httpx", "coverage", "pytest-cov"):
        assert re.search(f"(?m)^{package}\\b", listed), listed


def test_lock_needs_neither_an_environment_nor_sound_requirement_files(bake: Bake) -> None:
    project = bake()
    dev, runtime = project / "requirements-dev.txt", project / "requirements.txt"
    for requirements in (dev, runtime):
        requirements.write_text(f"<<<<<<< ours\n{requirements.read_text()}=======\n>>>>>>> theirs\n")

    result = make(project, "lock", f"UV={UV}")

    assert result.returncode == 0, result.stdout
    assert not (project / ".venv").exists()
    assert "<<<<<<<" not in dev.read_text() + runtime.read_text()
    assert "flask" in dict(pins(runtime))
    assert pins(runtime) < pins(dev)


def test_format_formats_whatever_the_linter_finds(bake: Bake) -> None:
    project = bake()
    module = project / "app/shop.py"
    module.write_text('"""Shop."""\n\nimport os\n\nPRICE=undefined\n')

    result = make(project, "format", f"VENV={PROJECT_VENV}", "-o", f"{PROJECT_VENV}/ready")

    assert module.read_text() == '"""Shop."""\n\nPRICE = undefined\n'
    assert result.returncode != 0
    assert "F821" in result.stdout
