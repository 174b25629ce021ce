"""`appdir make` and `appdir check` of `main.py`, as root and as somebody who is not."""

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config import ROOT, AppDir
from main import cli

USER, GROUP = "nobody", "daemon"
RunAsPlainUser = Callable[..., subprocess.CompletedProcess[str]]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppDir:
    """The configured folder, which is not there."""
    monkeypatch.setenv("APP_DIR", str(tmp_path / "app"))
    return AppDir(tmp_path / "app")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["appdir", *arguments])


@pytest.fixture
def run_as_plain_user(open_project: Path) -> RunAsPlainUser:
    """Runs the command as somebody who may read the project and owns nothing of it."""
    account = pwd.getpwnam(USER)
    code = f"""
import os, sys
import main
os.setgroups([])
os.setgid({account.pw_gid})
os.setuid({account.pw_uid})
main.cli(prog_name="python main.py")
"""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "appdir", *arguments]
        return subprocess.run(command, cwd=open_project, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that everybody may enter and write; pytest's own are for nobody else."""
    path = Path(tempfile.mkdtemp(prefix="test-appdir-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def test_make_makes_the_configured_folder_and_says_so(folder: AppDir) -> None:
    result = run("make")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"{folder.path}: made"
    assert f"{folder.env_file}: written with a new secret" in lines
    assert len(lines) == len(list(folder.path.rglob("*"))) + 2
    assert folder.env_file.read_text().partition("=")[2].strip() not in result.output
    assert run("make").output == f"ok: {folder.path}\n"
    assert run("check").output == f"ok: {folder.path}\n"


def test_the_folder_can_be_another_one(folder: AppDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("make", "--path", "other").exit_code == 0
    assert AppDir(tmp_path / "other").env_file.is_file()
    assert run("check", "--path", "other").exit_code == 0
    assert not folder.path.exists()


def test_a_dry_run_says_what_would_be_done(folder: AppDir) -> None:
    lines = run("make", "--dry-run").output.splitlines()
    assert lines[0] == f"{folder.path}: would be made"
    assert all(": would be " in line for line in lines)
    assert not folder.path.exists()
    assert [line.replace("would be ", "") for line in lines] == run("make").output.splitlines()[:-1]
    assert run("make", "--dry-run").output == f"ok: {folder.path}\n"


def test_programs_get_json(folder: AppDir) -> None:
    would = json.loads(run("make", "--dry-run", "--json").output)
    made = json.loads(run("make", "--json").output)
    assert would == made
    assert made["path"] == str(folder.path)
    assert made["changes"][0] == {"path": str(folder.path), "change": "made"}
    assert json.loads(run("make", "--json").output) == {"path": str(folder.path), "changes": []}
    assert json.loads(run("check", "--json").output) == {"path": str(folder.path), "findings": []}
    folder.data.chmod(0o777)
    result = run("check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["findings"] == [
        {
            "path": str(folder.data),
            "finding": "mode 0777, expected 0750",
            "mend": "python main.py appdir make",
        }
    ]


def test_the_command_that_check_names_mends_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "my app"
    assert run("make", "--path", str(path)).exit_code == 0
    (path / "data").chmod(0o777)
    result = run("check", "--path", str(path))
    assert result.exit_code == 1
    command = f"python main.py appdir make --path '{path}'"
    assert result.output == f"{path}/data: mode 0777, expected 0750; run `{command}`\n"
    mend = [sys.executable, *command.replace(f"'{path}'", "{}").split()[1:]]
    mend[-1] = str(path)
    subprocess.run(mend, cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert run("check", "--path", str(path)).exit_code == 0


def test_all_refusals_come_at_once_on_standard_error(folder: AppDir) -> None:
    for command in ("make", "check"):
        result = run(command, "--path", "", "--user", "no-such-user", "--group", "", "--json")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            "--user: found 'no-such-user', expected a user of this machine; make one with `useradd`",
            "--group: found '', expected a group of this machine; make one with `groupadd`",
            "--path: found nothing, expected a folder",
        ]


def test_an_empty_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DIR", "")
    result = run("make")
    assert result.exit_code == 2
    assert result.stderr == "environment variable APP_DIR: found nothing, expected a folder; set or unset it\n"


def test_the_folder_can_be_made_while_other_settings_are_wrong(folder: AppDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_WEB__PORT", "x")
    monkeypatch.setenv("APP_ENV", "nowhere")
    assert run("make").exit_code == 0
    (folder.config / "web.yaml").write_text("{")
    assert run("make").exit_code == 0
    assert run("check").exit_code == 0


@needs_root
def test_root_gives_the_service_what_it_writes(folder: AppDir) -> None:
    assert run("make", "--user", USER, "--group", GROUP).exit_code == 0
    assert run("check", "--user", USER, "--group", GROUP).exit_code == 0
    os.chown(folder.path / "media", 0, 0)
    result = run("check", "--user", USER, "--group", GROUP)
    assert result.exit_code == 1
    assert result.output == (
        f"{folder.path}/media: owner root:root, expected {USER}:{GROUP}; "
        f"run `python main.py appdir make --user {USER} --group {GROUP}`\n"
    )
    assert run("make").output.splitlines() == [
        f"{folder.path}/media: given to {USER}:{GROUP} from root:root",
        f"ok: {folder.path}",
    ]


@pytest.mark.slow
@needs_root
def test_a_plain_user_has_a_folder_of_their_own(open_path: Path, run_as_plain_user: RunAsPlainUser) -> None:
    path = open_path / "app"
    made = run_as_plain_user("make", "--path", str(path))
    assert (made.returncode, made.stderr) == (0, "")
    assert {place.owner() for place in (path, *path.rglob("*"))} == {USER}
    again = run_as_plain_user("make", "--path", str(path), "--user", USER)
    assert (again.returncode, again.stdout) == (0, f"{path}/.env: set to mode 0640 from 0600\nok: {path}\n")
    # Root does not take it away.
    assert run("make", "--path", str(path)).output == f"ok: {path}\n"


@pytest.mark.slow
@needs_root
def test_a_plain_user_who_may_not_is_told_before_anything_is_changed(
    open_path: Path, run_as_plain_user: RunAsPlainUser
) -> None:
    path = open_path / "app"
    given = run_as_plain_user("make", "--path", str(path), "--user", "root", "--group", GROUP)
    assert given.returncode == 2
    assert f"{path}/data: cannot be given to root:{GROUP} by {USER}; run this as root" in given.stderr.splitlines()
    assert "Traceback" not in given.stderr
    assert not path.exists()

    run("make", "--path", str(path), "--group", grp.getgrgid(pwd.getpwnam(USER).pw_gid).gr_name)
    (path / "data").chmod(0o770)
    (path / "cache").rmdir()
    refused = run_as_plain_user("make", "--path", str(path))
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        f"{path}/data: belongs to root, not to {USER}; run this as root",
        f"{path}: cannot be written by {USER}; run this as root",
    ]
