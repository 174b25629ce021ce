"""What `make release` packs, and what it refuses to."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from config import ROOT

GIT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_COMMITTER_DATE": "2026-11-20T12:00:00+01:00",
}
FILES = {
    "pyproject.toml": '[project]\nname = "shop"\nversion = "1.2"\n',
    "main.py": "print(1)\n",
    "app/static/style.css": "a {}\n",
    "app/static/pictures/a.min.svg": "<svg/>\n",
    "tests/test_main.py": "",
    "requirements-dev.txt": "",
}


class Project:
    """A small project whose artifact can be made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "init.defaultBranch=main", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=GIT, capture_output=True, text=True, check=True
        ).stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")

    def release(self, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.folder / "deploy/artifact.py")]
        return subprocess.run(
            command, env={**GIT, **environ}, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )

    def packed(self) -> Path:
        """The artifact, which is made."""
        result = self.release()
        assert (result.returncode, result.stderr) == (0, "")
        return self.folder / result.stdout.split()[0]

    def refusal(self, **environ: str) -> str:
        """The one line that says why there is no artifact."""
        result = self.release(**environ)
        assert (result.returncode, result.stdout) == (2, "")
        assert not (self.folder / "dist").exists()
        [line] = result.stderr.splitlines()
        return line


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "shop")
    for path, text in FILES.items():
        project.write(path, text)
    (project.folder / "main.py").chmod(0o755)
    (project.folder / "deploy").mkdir()
    for path in (".gitattributes", ".gitignore", "deploy/artifact.py"):
        shutil.copy(ROOT / path, project.folder / path)
    project.git("init", "--quiet")
    project.commit()
    return project


def contents(artifact: Path) -> dict[str, bytes]:
    with tarfile.open(artifact) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}


def test_it_holds_what_the_service_needs_and_says_so(project: Project) -> None:
    artifact = project.packed()

    files = contents(artifact)
    manifest = json.loads(files.pop("release.json"))
    assert artifact == project.folder / "dist/shop-1.2.tar.gz"
    assert sorted(files) == [
        ".gitattributes",
        ".gitignore",
        "app/static/pictures/a.min.svg",
        "app/static/style.css",
        "deploy/artifact.py",
        "main.py",
        "pyproject.toml",
    ]
    assert manifest == {
        "application": "shop",
        "version": "1.2",
        "commit": project.git("rev-parse", "HEAD"),
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
    }


def test_everything_in_it_is_root_s_and_as_old_as_the_commit(project: Project) -> None:
    with tarfile.open(project.packed()) as tar:
        entries = tar.getmembers()
    assert entries[0].name == "release.json"
    assert [entry.name for entry in entries[1:]] == sorted(entry.name for entry in entries[1:])
    assert all(entry.isreg() for entry in entries)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in entries} == {
        (0, 0, "root", "root", 1795172400)
    }
    assert {entry.name: entry.mode for entry in entries if entry.mode != 0o644} == {"main.py": 0o755}


def test_the_same_commit_gives_the_same_bytes_from_another_clone_and_for_another_user(
    project: Project, tmp_path: Path
) -> None:
    clone = Project(tmp_path / "somewhere" / "else")
    clone.folder.parent.mkdir()
    project.git("clone", "--quiet", str(project.folder), str(clone.folder))
    settings = tmp_path / "gitconfig"
    settings.write_text("[core]\nautocrlf = true\n[tar]\numask = 0077\n[log]\nshowSignature = true\n")
    first = project.packed().read_bytes()

    result = clone.release(
        GIT_CONFIG_GLOBAL=str(settings), TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="1", HOME=str(tmp_path)
    )

    assert result.returncode == 0
    assert (clone.folder / "dist/shop-1.2.tar.gz").read_bytes() == first
    # Bytes 4 to 8 of gzip's header are its time, RFC 1952.
    assert first[4:8] == bytes(4)


def test_another_commit_gives_another_artifact_in_the_same_place(project: Project) -> None:
    first = contents(project.packed())
    project.write("app/static/style.css", "b {}\n")
    project.commit()
    second = contents(project.packed())
    assert first["app/static/style.css"] != second["app/static/style.css"]
    assert [path.name for path in (project.folder / "dist").iterdir()] == ["shop-1.2.tar.gz"]


def test_a_project_in_a_folder_of_a_larger_repository_is_packed_alone(project: Project) -> None:
    alone = contents(project.packed())
    repository = project.folder.parent
    shutil.rmtree(project.folder / ".git")
    Project(repository).write("other/main.py", "")
    Project(repository).git("init", "--quiet")
    Project(repository).commit()
    assert contents(project.packed()).keys() == alone.keys()


@pytest.mark.parametrize("path", ["main.py", "app/new.py"])
def test_what_is_not_committed_is_refused(project: Project, path: str) -> None:
    project.write(path, "print(2)\n")
    assert project.refusal() == f"{path}: not committed; commit or remove it, or name it in .gitignore"


def test_several_changes_are_one_line(project: Project) -> None:
    for name in ("a", "b", "c"):
        project.write(name, "")
    assert project.refusal().startswith("a and 2 more: not committed")


def test_a_project_without_a_commit_is_refused(project: Project) -> None:
    expected = f"{project.folder}: is in no commit; run: git init && git add . && git commit"
    shutil.rmtree(project.folder / ".git")
    assert project.refusal() == expected
    project.git("init", "--quiet")
    assert project.refusal() == expected


def test_a_project_that_another_repository_ignores_is_refused(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    above = Project(project.folder.parent)
    above.write(".gitignore", "/shop/\n")
    above.git("init", "--quiet")
    above.commit()
    assert "is in no commit" in project.refusal()


@pytest.mark.parametrize("path", [".env", "deploy/.env", ".env.production", "instance/data/app.sqlite3", "secrets/key"])
def test_what_is_secret_by_its_name_is_refused(project: Project, path: str) -> None:
    project.write(path, "")
    project.git("add", "--force", path)
    project.git("commit", "--quiet", "--message", "a mistake")
    assert project.refusal() == f"{path}: must not be in git, it holds secrets; run: git rm --cached {path}, and commit"


@pytest.mark.parametrize("kind", ["", "RSA ", "OPENSSH "])
def test_a_private_key_is_refused_unless_it_is_one_of_the_tests(project: Project, kind: str) -> None:
    key = f"-----BEGIN {kind}PRIVATE" + " KEY-----\n"
    project.write("tests/key.pem", key)
    project.commit()
    project.packed()
    shutil.rmtree(project.folder / "dist")
    project.write("config/key.pem", f"# a comment\n{key}")
    project.commit()
    assert project.refusal() == "config/key.pem: found a private key; take it out of git, and make a new one"


def test_code_that_does_not_compile_is_refused_with_its_line(project: Project) -> None:
    project.write("app/broken.py", "x = 1\ny = (\n")
    project.commit()
    assert project.refusal().startswith("app/broken.py:2: does not compile: ")


def test_links_are_refused(project: Project) -> None:
    (project.folder / "link").symlink_to("/etc/passwd")
    project.commit()
    assert project.refusal() == "link: found a link or a submodule, expected a file"


def test_files_that_a_release_is_given_have_their_names_for_themselves(project: Project) -> None:
    project.write("RELEASE", "")
    project.commit()
    assert project.refusal() == "RELEASE: is the name of a file that every release is given; take another one"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a name and a version in [project]: 'project'"),
        ('[project]\nname = "shop"\n', "expected a name and a version in [project]: 'version'"),
        ("[", "expected a name and a version in [project]: "),
        ('[project]\nname = "../shop"\nversion = "1"\n', "project.name: found '../shop', expected a text of letters"),
        ('[project]\nname = "shop"\nversion = 1\n', "project.version: found 1, expected a text"),
    ],
)
def test_a_project_without_a_usable_name_and_version_is_refused(project: Project, text: str, reason: str) -> None:
    project.write("pyproject.toml", text)
    project.commit()
    assert project.refusal().startswith(f"pyproject.toml: {reason}")


def test_a_machine_without_git_is_told_so(project: Project) -> None:
    assert project.refusal(PATH="/nowhere") == "git: is not installed; run: apt install git"


def test_this_project_can_be_packed_and_runs_from_its_artifact(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    ignored = shutil.ignore_patterns(".venv", ".git", "instance", "dist", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, project.folder, ignore=ignored)
    project.git("init", "--quiet")
    project.commit()
    release = tmp_path / "release"
    with tarfile.open(project.packed()) as tar:
        names = tar.getnames()
        tar.extractall(release)
    needed = {"main.py", "web.py", "queues.py", "scheduler.py", "requirements.txt"}
    assert needed | {f"deploy/{name}.py" for name in ("__init__", "release", "doctor", "installation")} < set(names)
    assert not [name for name in names if name.startswith(("tests/", ".git", "dist/", "instance/"))]

    code = (
        "import re; from app import create_app; client = create_app().test_client();"
        " style, = re.findall('href=\"(/static/style[^\"]+)', client.get('/login').text);"
        " print(style, client.get(style).status_code)"
    )
    environ = {"PATH": os.environ["PATH"], "APP_ENV": "testing", "APP_DIR": str(tmp_path / "app")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=release, env=environ, capture_output=True, text=True, check=False, timeout=60
    )

    version = hashlib.sha256((release / "app/static/style.css").read_bytes()).hexdigest()[:8]
    assert result.stdout.split() == [f"/static/style.css?v={version}", "200"], result.stderr
