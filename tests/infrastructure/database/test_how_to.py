"""The project moves to PostgreSQL in development by the commands of docs/how-to.md, as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg

from config import ROOT
from tests.infrastructure.servers import HOST, PATH, Postgres


def test_a_project_moves_to_postgresql_in_development(postgres_server: Postgres, tmp_path: Path) -> None:
    project = tmp_path / "my_service"
    skipped = shutil.ignore_patterns("instance", "tests", ".venv", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, project, ignore=skipped)
    (project / ".venv").symlink_to(sys.prefix)
    os.utime(project / "requirements-dev.txt", (0, 0))  # So make leaves the environment alone.
    postgres_server.start()
    environ = {"PATH": PATH, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "PGHOST": HOST}
    environ |= {"PGPORT": str(postgres_server.port), "PGUSER": "postgres", "PGPASSWORD": postgres_server.password}
    section = (project / "docs/how-to.md").read_text().partition("## PostgreSQL in development")[2]
    printed = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert len(printed) == 1

    for commands in (".venv/bin/python main.py appdir make", printed[0]):
        result = subprocess.run(
            ["sh", "-ec", commands], cwd=project, env=environ, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr

    with psycopg.connect(f"{postgres_server.url}my_service") as connection:
        assert connection.execute("SELECT count(*) FROM user_account").fetchone() == (0,)
    postgres_server.execute("DROP DATABASE my_service WITH (FORCE)")
