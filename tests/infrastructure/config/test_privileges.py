"""Root does not work in folders that the service may fill with links."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from config import AppDir

CODE = """
import os, sys
from pathlib import Path
from config import AppDir
from config.privileges import become_service_user
become_service_user(AppDir(Path(sys.argv[1])))
print(*os.getresuid(), *os.getresgid())
"""


def becomes(folder: AppDir, project: Path) -> str:
    command = [sys.executable, "-c", CODE, str(folder.path)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_service_and_cannot_go_back(tmp_path: Path, open_project: Path) -> None:
    folder, nobody = AppDir(tmp_path / "app"), pwd.getpwnam("nobody")
    assert becomes(folder, open_project) == "0 0 0 0 0 0"
    folder.make()
    assert becomes(folder, open_project) == "0 0 0 0 0 0"
    os.chown(folder.data, nobody.pw_uid, nobody.pw_gid)
    # Real, effective and saved: with one of them left, a process could be root again.
    assert becomes(folder, open_project) == " ".join([str(nobody.pw_uid)] * 3 + [str(nobody.pw_gid)] * 3)
