"""Each recipe of a project's docs/recipes/ is applied to a project as it is printed, and does what it says there."""

import re
import shutil
from pathlib import Path

import pytest
from baking import EXAMPLE, PROJECT_VENV, TEMPLATE, Bake, generate
from how_to import follow_recipe
from test_project import ENVIRONMENT, run

# What a recipe is checked with, in the project.
CHECKS = TEMPLATE / "tests/recipes"
RECIPES = sorted(path.stem.removeprefix("test_") for path in CHECKS.glob("test_*.py"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all recipes, so that they are known to go together; it has an environment of its own."""
    project = generate(tmp_path_factory.mktemp("recipes"), answers={"example": EXAMPLE})
    run(project, "make setup")
    return project


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_as_printed(project: Path, name: str) -> None:
    follow_recipe(project, name.replace("_", "-"), run)
    run(project, "make format")
    check = shutil.copy(CHECKS / f"test_{name}.py", project / "tests/integration")
    # Servers' programs that the check starts, and the project does not have.
    run(project, f".venv/bin/python -m pytest -q {check}", PATH=f"{ENVIRONMENT['PATH']}:{PROJECT_VENV / 'bin'}")
    run(project, "make lint")


def test_each_recipe_is_listed_and_tested(bake: Bake) -> None:
    folder = bake() / "docs/recipes"
    pages = {path.stem for path in folder.glob("*.md")} - {"README"}
    assert set(re.findall(r"\]\(([\w-]+)\.md\)", (folder / "README.md").read_text())) == pages
    assert pages == {name.replace("_", "-") for name in RECIPES}
