"""The template generates the same files from anywhere to anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from baking import TEMPLATE, Bake, files_of, generate, run_in

Files = dict[str, tuple[bytes, int]]
UNABLE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# Folders to write to, and what the environment says meanwhile.
PLACES: dict[str, tuple[bytes, dict[str, str]]] = {
    "spaces and quotes": (b'it\'s "here" \\ now', {}),
    "percent and dollar": (b"100% %s $HOME `id` $(id)", {}),
    "two lines": (b"two\nlines", {}),
    "no encoding": (b"plain", {"LC_ALL": "C", **UNABLE}),
    "latin-1": (b"caf\xe9", {"LC_ALL": "C.UTF-8"}),
    "Japanese told in ASCII": ("日本".encode(), {"PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"}),
    "Japanese in the C locale": ("日本".encode(), {"LC_ALL": "C"}),
}


@pytest.fixture(scope="session")
def expected(baked: Bake) -> Files:
    """The project with the default answers."""
    return made_in(baked())


def made_in(project: Path) -> Files:
    """All but the record of the template's commit, which copies of the template have not."""
    return {name: file for name, file in files_of(project).items() if name != ".cruft.json"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_git_s_archive_of_the_template_gives_the_same_bytes(template_copy: Path, expected: Files, kind: str) -> None:
    folder = template_copy.parent
    for command in (["init", "-q"], ["add", "-A"]):
        run_in(template_copy, "git", *command)
    tree = run_in(template_copy, "git", "write-tree").stdout.strip()
    archive = folder / f"archive.{kind}"
    result = run_in(template_copy, "git", "archive", "--prefix=template/", f"--output={archive}", tree)
    assert result.returncode == 0, result.stdout
    if kind == "tar.gz":
        template_copy.rename(folder / "original")
        subprocess.run(["tar", "xzf", archive], cwd=folder, check=True)

    project = made_in(generate(folder / "out", archive if kind == "zip" else template_copy))

    assert project == expected


def test_modes_come_from_the_first_line_and_the_umask_alone(template_copy: Path, expected: Files) -> None:
    assert {mode & 0o777 for _, mode in expected.values()} <= {0o644, 0o755}

    for folder, mode in (("executable", 0o777), ("read-only", 0o444)):
        for path in template_copy.rglob("*"):
            path.chmod(mode | 0o111 if path.is_dir() else mode)
        assert made_in(generate(template_copy.parent / folder, template_copy)) == expected


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077], ids=oct)
def test_the_umask_is_obeyed(tmp_path: Path, expected: Files, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = made_in(generate(tmp_path))
    finally:
        os.umask(before)

    full = {name: 0o777 if content.startswith(b"#!") else 0o666 for name, (content, _) in expected.items()}
    assert {name: mode & 0o777 for name, (_, mode) in made.items()} == {
        name: mode & ~umask for name, mode in full.items()
    }


def test_a_file_system_without_modes_is_no_fault(tmp_path: Path, expected: Files) -> None:
    # As on FAT, where setting a mode has no effect.
    (tmp_path / "sitecustomize.py").write_text("import os\nos.chmod = lambda *_, **__: None\n")
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "-o", "out"]

    result = run_in(tmp_path, *command, environ={"PYTHONPATH": str(tmp_path)})

    assert result.returncode == 0, result.stdout
    [project] = (tmp_path / "out").iterdir()
    assert {name: content for name, (content, _) in made_in(project).items()} == {
        name: content for name, (content, _) in expected.items()
    }


@pytest.mark.parametrize("place", PLACES)
def test_the_folder_s_name_and_the_terminal_do_not_matter(tmp_path: Path, expected: Files, place: str) -> None:
    name, environ = PLACES[place]
    folder = tmp_path / os.fsdecode(name)
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "-o", str(folder)]

    result = subprocess.run(command, cwd=tmp_path, env={**os.environ, **environ}, capture_output=True, check=False)

    assert result.returncode == 0, result.stderr
    [project] = folder.iterdir()
    assert made_in(project) == expected


def test_a_reader_that_has_gone_does_not_cost_the_project(tmp_path: Path) -> None:
    command = f"({sys.executable} -m cookiecutter '{TEMPLATE}' --no-input -o out 2>&1; echo $? > code) | true"

    assert run_in(tmp_path, "sh", "-c", command).returncode == 0

    assert list((tmp_path / "out").glob("*/main.py"))


def test_a_submodule_generates_into_the_repository_that_holds_it(template_copy: Path, expected: Files) -> None:
    outer = template_copy.parent / "outer"
    outer.mkdir()
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always"]
    for folder, command in (
        (template_copy, ["init"]),
        (template_copy, ["add", "-A"]),
        (template_copy, ["commit", "-m", "Template"]),
        (outer, ["init"]),
        (outer, ["submodule", "add", str(template_copy), "template"]),
        (outer, ["commit", "-m", "Template"]),
    ):
        result = run_in(folder, "git", *identity, *command)
        assert result.returncode == 0, result.stdout

    assert made_in(generate(outer / "services", outer / "template")) == expected
    assert run_in(outer, "git", "status", "--porcelain").stdout == "?? services/\n"
    # What the project ignores is not what its tests or its release need.
    run_in(outer, "git", "add", "services")
    assert len(run_in(outer, "git", "ls-files", "services").stdout.splitlines()) == len(expected) + 1


def test_cruft_in_a_linked_temporary_folder_refuses_bad_answers_too(template_copy: Path) -> None:
    # As on macOS, where this folder is a link. What is refused is in the template, whose folder cruft does not name.
    folder = template_copy.parent
    (folder / "real").mkdir()
    (folder / "linked").symlink_to("real")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (["init"], ["add", "-A"], ["commit", "-m", "Template"]):
        run_in(template_copy, "git", *identity, *command)
    cruft = Path(sys.executable).with_name("cruft")
    options = ["--no-input", "--extra-context", '{"project_slug": "click"}']

    environ = {"TMPDIR": str(folder / "linked"), "PWD": "/"}
    result = run_in(folder, cruft, "create", str(template_copy), *options, environ=environ)

    assert 'project_slug: "click" is a package that the project uses' in result.stdout
    assert result.returncode == 1
    assert not (folder / "click").exists()
