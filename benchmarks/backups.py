"""Whether backups of a service in use lack anything, and how much time and memory they take.

`make bench` runs it; `consistency` or `size` behind the command measure only that. Consistency: three processes use a
service, and backup after backup of it is restored and started. Size: a gigabyte of files that cannot be compressed,
each command in a process of its own.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TEMPLATE = Path(__file__).resolve().parent.parent
BACKUPS = 20
DOCTOR_VISITS = 3
FILES, FILE_SIZE = 1024, 1 << 20
PASSPHRASE = "a long passphrase"


def bake(folder: Path) -> Path:
    """A project with the default answers, whose code this process then imports."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", "--accept-hooks", "no"]
    subprocess.run([*command, "-o", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "my_service"


def consistency(folder: Path) -> None:
    """Print how many backups were restored, and what was wrong with them."""
    rehearsal = importlib.import_module("tests.integration.backup.rehearsal")
    app_dir, settings = migrated(folder)
    environ = rehearsal.environment(app_dir.path, APP_LOGGING__ROOT__LEVEL="ERROR")
    create = importlib.import_module("backup.create").create
    # Between the copy of the database and the files that it names, much can happen.
    with (app_dir.data / "a").open("wb") as file:
        file.truncate(50 << 20)
    with rehearsal.used(environ, 3):
        start = time.perf_counter()
        made = [create(settings, keep=BACKUPS) for _ in range(BACKUPS)]
        seconds = (time.perf_counter() - start) / BACKUPS
    vanished = sum(len(done.vanished) for done in made)
    problems = []
    restore = importlib.import_module("backup.restore").restore
    for number, done in enumerate(made):
        target = folder / f"restored-{number}"
        restore(done.path, target, settings)
        problems += rehearsal.problems(target, app_dir.path, environ)
        problems += doctor_finds(target, environ, rehearsal.ROOT)
    print(f"{BACKUPS} backups under writes, {seconds:.2f} s each, {made[-1].files} files in the last one")
    print(f"{BACKUPS} restored, started and seen by the doctor: {len(problems)} problems, {vanished} lost files")
    for problem in problems:
        print(f"  {problem}")


def doctor_finds(target: Path, environ: dict[str, str], project: Path) -> list[str]:
    """What the doctor says of a restored installation that a worker and a scheduler run on; nothing, if it passes."""
    environ = {**environ, "APP_DIR": str(target)}
    with ExitStack() as running:
        for script in ("queues.py", "scheduler.py"):
            process = subprocess.Popen([sys.executable, script], env=environ, cwd=project, stderr=subprocess.DEVNULL)
            running.callback(process.wait)
            running.callback(process.terminate)
        command = [sys.executable, "main.py", "check", "--json"]
        # The scheduler needs a moment until it can be seen; whoever has just started it asks again.
        for _ in range(DOCTOR_VISITS):
            answer = subprocess.run(command, env=environ, cwd=project, capture_output=True, text=True, check=False)
            found = [
                f"{row['check']}: {row['detail']}" for row in json.loads(answer.stdout) if row["result"] == "FAILED"
            ]
            if not found:
                break
    return found


def size(folder: Path) -> None:
    """Print seconds, speed and peak memory of each command."""
    app_dir, _ = migrated(folder)
    for number in range(FILES):
        place = app_dir.path / f"media/{number % 16}/{number}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(os.urandom(FILE_SIZE))
    megabytes = FILES * FILE_SIZE / 1e6
    for passphrase in ("", PASSPHRASE):
        os.environ["BACKUP_PASSPHRASE"] = passphrase
        path = ""
        for name in ("create", "verify", "restore"):
            target = folder / f"restored-{bool(passphrase)}"
            with get_context("spawn").Pool(1) as pool:
                seconds, peak, path = pool.apply(measure, (name, sys.path[0], path, str(target)))
            title = f"{name}{', encrypted' if passphrase else ''}"
            print(f"{title:20} {seconds:6.1f} s {megabytes / seconds:6.0f} MB/s {peak:5.0f} MB above the start")


def measure(name: str, project: str, path: str, target: str) -> tuple[float, float, str]:
    """Seconds, megabytes of memory above the start, and the backup's path, of one command in this process."""
    sys.path.insert(0, project)
    create = importlib.import_module("backup.create").create
    reading = importlib.import_module("backup.restore")
    settings = importlib.import_module("config").load()
    importlib.import_module("database.migrations").scripts()
    os.sync()  # What others have written is not this one's to wait for.
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew from here.
    before = memory("VmRSS")
    start = time.perf_counter()
    if name == "create":
        path = str(create(settings).path)
    elif name == "verify":
        reading.verify(Path(path), settings)
    else:
        reading.restore(Path(path), Path(target), settings)
    return time.perf_counter() - start, memory("VmHWM") - before, path


def memory(field: str) -> float:
    """A line of Linux's account of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def migrated(folder: Path) -> tuple[Any, Any]:
    """An installation whose database has all its tables, and its settings."""
    config = importlib.import_module("config")
    app_dir = config.AppDir(folder / "app")
    app_dir.make()
    os.environ |= {"APP_ENV": "testing", "APP_DIR": str(app_dir.path)}
    engine = importlib.import_module("database").connect(f"sqlite:///{app_dir.database}")
    config = importlib.import_module("database.migrations").alembic_config(engine)
    importlib.import_module("alembic.command").upgrade(config, "heads")
    engine.dispose()
    return app_dir, config.load()


def main() -> None:
    """Print all of it."""
    with TemporaryDirectory(prefix="backup-bench-") as temporary:
        folder = Path(temporary)
        sys.path.insert(0, str(bake(folder)))
        for case in (consistency, size):
            if case.__name__ in (sys.argv[1:] or [case.__name__]):
                (folder / case.__name__).mkdir()
                case(folder / case.__name__)


if __name__ == "__main__":
    main()
