"""The artifact and its wheels are all that a host needs."""

import re
import sys
import tarfile
from pathlib import Path

from baking import Bake, run_in
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename
from releasing import GIT, UV, commit, make


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


def test_a_host_without_a_network_can_install_and_run_it(bake: Bake, tmp_path: Path) -> None:
    project = bake()
    commit(project)
    make(project, "release", "wheels")
    release = tmp_path / "release"
    with tarfile.open(project / "dist/release.tar.gz") as tar:
        tar.extractall(release)
    lines = re.findall(r"^(\w.*) \\$", (release / "requirements.txt").read_text(), re.MULTILINE)
    pins = {f"{pin.name}{pin.specifier}" for pin in map(Requirement, lines) if not pin.marker or pin.marker.evaluate()}
    wheels = [parse_wheel_filename(path.name) for path in (project / "dist/wheels").iterdir()]
    assert pins == {f"{name}=={version}" for name, version, *_ in wheels}

    offline = {"UV_FIND_LINKS": str(project / "dist/wheels"), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
    install = [UV, "pip", "install", "-q", "--no-cache", "--require-hashes", "--python", ".venv/bin/python"]
    for command in (
        [UV, "venv", "-q", "--python", sys.executable, ".venv"],
        [*install, "-r", "requirements.txt"],
        [".venv/bin/python", "main.py", "appdir", "make"],
        [".venv/bin/python", "main.py", "db", "upgrade"],
        [".venv/bin/python", "main.py", "check"],
    ):
        production = {"APP_ENV": "production", "APP_DIR": str(tmp_path / "shared")}
        result = run_in(release, *command, environ={**offline, **production})
        assert result.returncode == 0, result.stdout
