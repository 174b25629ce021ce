"""`main.py backup database`: a copy of the database alone, and its way back."""

import json
import os
import pwd
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from backup.create import create
from config import ROOT, AppDir, load
from database import connect
from database.migrations import upgrade


@pytest.fixture
def folder(tmp_path: Path, migrated_database: Path) -> AppDir:
    folder = AppDir(tmp_path / "app")
    folder.make()
    shutil.copyfile(migrated_database, folder.database)
    return folder


def environment(folder: AppDir, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "APP_ENV": "testing", "APP_DIR": str(folder.path), **more}


def copy(environ: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "main.py"), "backup", "database", *map(str, arguments)]
    return subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)


def copied(environ: dict[str, str], *arguments: object) -> Path:
    result = copy(environ, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return Path(result.stdout.strip())


def test_a_copy_is_whole_although_somebody_writes(folder: AppDir) -> None:
    stop, started = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(folder.database, timeout=30, isolation_level=None)) as live:
            live.execute("CREATE TABLE pair (a, b)")
            number = 0
            while not stop.is_set():
                live.execute("BEGIN IMMEDIATE")
                live.execute("INSERT INTO pair VALUES (?, NULL)", [number])
                live.execute("UPDATE pair SET b = a WHERE a = ?", [number])
                live.execute("COMMIT")
                number += 1
                started.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert started.wait(10)
        path = copied(environment(folder))
    finally:
        stop.set()
        writer.join()

    slug = load(environment(folder)).app.slug
    assert path.parent == folder.backups
    assert re.fullmatch(rf"{slug}-database-\d{{8}}T\d{{6}}Z\.sqlite3", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) > 0, count(*) = count(b) FROM pair").fetchone() == (1, 1)
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    assert list(folder.backups.iterdir()) == [path]


def test_a_copy_goes_back_as_the_page_says(folder: AppDir) -> None:
    path = copied(environment(folder))
    with closing(sqlite3.connect(folder.database)) as live:
        live.execute("PRAGMA wal_autocheckpoint = 0")
        live.execute("DROP TABLE rate_limit")
        live.commit()
        left = {name: (folder.data / name).read_bytes() for name in ("app.sqlite3-wal", "app.sqlite3-shm")}
    for name, content in left.items():
        (folder.data / name).write_bytes(content)  # As a killed process leaves them.
    commands = re.findall(r"(?m)^runuser -u www-data -- (.*)$", (ROOT / "docs/backup.md").read_text(encoding="utf-8"))
    assert len(commands) == 2
    for command in commands:
        line = re.sub(r"backups/\S+", str(path), command)
        subprocess.run(line.split(), cwd=folder.path, check=True)
    with closing(sqlite3.connect(folder.database)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM rate_limit").fetchone() == (0,)


def test_where_there_is_no_database_nothing_is_copied_and_nothing_is_wrong(folder: AppDir) -> None:
    folder.database.unlink()
    result = copy(environment(folder))
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "nothing to copy: there is no database yet\n"
    assert not folder.database.exists()


def test_so_many_copies_stay_and_backups_are_left_alone(folder: AppDir, tmp_path: Path) -> None:
    environ = environment(folder, APP_BACKUP__KEEP="2", APP_BACKUP__FOLDER=str(tmp_path / "place"))
    (tmp_path / "place").mkdir()
    backup = create(load(environ)).path
    old = backup.with_name("my_service_2-database-20200101T000000Z.sqlite3")
    old.touch()
    copies = [copied(environ) for _ in range(3)]
    assert len(set(copies)) == 3
    assert set((tmp_path / "place").iterdir()) == {backup, old, *copies[1:]}
    line = [sys.executable, str(ROOT / "main.py"), "backup", "list", "--json"]
    listed = json.loads(subprocess.run(line, env=environ, capture_output=True, check=True).stdout)
    assert [row["path"] for row in listed] == [str(backup)]


def test_what_killed_runs_have_left_is_removed(folder: AppDir) -> None:
    environ = environment(folder)
    left = folder.backups / f"{load(environ).app.slug}-database-0123456789abcdef.partial"
    left.mkdir()
    (left / "copy").touch()
    create(load(environ))
    assert left.exists()  # A backup does not know whether it is in use.
    copied(environ)
    assert not left.exists()


def test_a_copy_is_not_encrypted_so_it_does_not_leave_the_app_folder_by_itself(folder: AppDir, tmp_path: Path) -> None:
    environ = environment(folder, APP_BACKUP__FOLDER=str(tmp_path), BACKUP_PASSPHRASE="a passphrase")
    assert copied(environ).parent == folder.backups
    assert copied(environ, tmp_path).parent == tmp_path


def test_what_is_refused_is_one_line_and_leaves_nothing(folder: AppDir, tmp_path: Path) -> None:
    result = copy(environment(folder), tmp_path / "nowhere")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    folder.database.write_bytes(b"something else" * 1000)
    result = copy(environment(folder))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert list(folder.backups.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_root_copies_as_the_services_user(migrated_database: Path, open_project: Path) -> None:
    service = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="test-copies-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        folder = AppDir(Path(place, "app"))
        folder.make(service.pw_name)
        shutil.copyfile(migrated_database, folder.database)
        os.chown(folder.database, service.pw_uid, service.pw_gid)
        # All is imported as root: others may not be able to read where the packages are.
        code = "import rich.progress, backup.create; from main import cli; cli(['backup', 'database'])"
        line = [sys.executable, "-c", code]
        environ = environment(folder)
        result = subprocess.run(
            line, cwd=open_project, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == 0, result.stderr
        assert Path(result.stdout.strip()).owner() == service.pw_name


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="needs pg_dump: apt install postgresql-client")
def test_a_dump_of_postgres_goes_back_into_an_empty_database(
    folder: AppDir, postgres_url: str, empty_database: str
) -> None:
    engine = connect(postgres_url)
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO rate_limit (key, hits, expires) VALUES ('kept', 1, 0)"))
    engine.dispose()
    environ = environment(folder, DATABASE_URL=postgres_url)
    path = copied(environ)
    assert path.suffix == ".dump"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    url = make_url(empty_database).set(drivername="postgresql")
    options = re.findall(r"pg_restore (.*) --dbname", (ROOT / "docs/backup.md").read_text(encoding="utf-8"))
    line = ["pg_restore", *options[0].split(), f"--dbname={url.render_as_string(hide_password=False)}", str(path)]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    engine = connect(empty_database)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM rate_limit WHERE key = 'kept'")) == 1
    engine.dispose()
