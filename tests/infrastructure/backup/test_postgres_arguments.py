"""What everybody on the machine can read of PostgreSQL's programs."""

import os
import stat
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from backup.databases import restore_postgres

PROGRAM = """#!/bin/sh
echo "$@" > "$SEEN/arguments"
printenv PGPASSWORD > "$SEEN/password"
"""


def test_a_password_is_in_the_environment_and_not_in_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_restore"
    program.write_text(PROGRAM)
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path))
    for url in ("postgresql://ada:hunter2@db:5432/app?sslmode=require", "postgresql://ada@db/app?password=hunter2"):
        restore_postgres(make_url(url), tmp_path / "dump")
        arguments = (tmp_path / "arguments").read_text()
        assert "--dbname=postgresql://ada@db" in arguments
        assert "hunter2" not in arguments
        assert (tmp_path / "password").read_text() == "hunter2\n"
