"""The artifact and its wheels are all that a host needs."""

import platform
import re
import tarfile
from pathlib import Path

from baking import Bake, run_in
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename
from releasing import GIT, commit, make, wheels


def test_clones_at_other_paths_make_the_same_artifact(bake: Bake, tmp_path: Path) -> None:
    project = bake(deploy="systemd")
    commit(project)
    clone = tmp_path / "a clone"
    assert run_in(tmp_path, "git", "clone", "--quiet", project, clone, environ=GIT).returncode == 0
    settings = tmp_path / "gitconfig"
    settings.write_text("[core]\nautocrlf = true\n[tar]\numask = 0077\n")

    make(project, "release")
    make(clone, "release", TZ="Asia/Tokyo", LC_ALL="C", GIT_CONFIG_GLOBAL=str(settings))

    artifact = "dist/release.tar.gz"
    assert (project / artifact).read_bytes() == (clone / artifact).read_bytes()
    assert run_in(project, "git", "status", "--porcelain").stdout == ""
    with tarfile.open(project / artifact) as tar:
        names = tar.getnames()
    assert {"main.py", "web.py", "requirements.txt", "deploy/release.py"} < set(names)
    assert not [name for name in names if name.startswith(("tests", ".git/", "dist", "instance"))]


def test_what_is_not_committed_is_not_packed(bake: Bake) -> None:
    project = bake()
    commit(project)
    (project / "main.py").write_text("print(1)\n")

    result = run_in(project, "make", "release", environ=GIT)

    assert result.returncode != 0
    assert "main.py" in result.stdout
    assert "commit this" in result.stdout
    assert not (project / "dist").exists()


def test_the_wheels_are_those_of_the_artifact_s_requirements(bake: Bake) -> None:
    # With nothing but these, tests/deploy installs and runs it on a host that has no network.
    project = bake()
    lines = re.findall(r"^(\w.*) \\$", (project / "requirements.txt").read_text(), re.MULTILINE)
    pins = {f"{pin.name}{pin.specifier}" for pin in map(Requirement, lines) if not pin.marker or pin.marker.evaluate()}
    made = [
        parse_wheel_filename(path.name)
        for path in wheels(project, ".".join(platform.python_version_tuple()[:2])).iterdir()
    ]
    assert pins == {f"{name}=={version}" for name, version, *_ in made}
