"""How fast the project's `Storage` is on a local disk, beside code that calls `os` itself.

`make bench` runs it. Both do the same in turns, file by file, so that both see the same machine; the figures are
medians. "plain os" is what a careful developer writes for one service: a temporary file, fsync, rename.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))
sys.dont_write_bytecode = True
from storage import Storage  # noqa: E402

KILOBYTE = os.urandom(1024)
MEGABYTE = os.urandom(1 << 20)


class PlainOs:
    """The standard library, without checks of any path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, chunks: Iterator[bytes]) -> None:
        target = f"{self.root}/{path}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(target))
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fchmod(descriptor, 0o640)
                os.fsync(descriptor)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    def read(self, path: str, *, whole: bool) -> None:
        with open(f"{self.root}/{path}", "rb") as file:
            while file.read(1 << 20):
                pass


class Ours:
    """The project's storage."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root.as_uri())

    def write(self, path: str, chunks: Iterator[bytes]) -> None:
        with self.storage.writer(path) as file:
            for chunk in chunks:
                file.write(chunk)

    def read(self, path: str, *, whole: bool) -> None:
        if whole:
            self.storage.read(path)
            return
        with self.storage.reader(path) as file:
            while file.read(1 << 20):
                pass


# How many files of how many pieces.
CASES = {"1,000 x 1 kB": (1000, 1, KILOBYTE), "5 x 256 MB": (5, 256, MEGABYTE)}


def memory(field: str) -> float:
    """A line of Linux's account of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        subjects: list[PlainOs | Ours] = [PlainOs(Path(folder, "plain")), Ours(Path(folder, "ours"))]
        for case, (count, pieces, data) in CASES.items():
            times: dict[tuple[type, str], list[float]] = {}
            Path("/proc/self/clear_refs").write_text("5")  # The peak of memory starts anew from here.
            before = memory("VmRSS")
            for number in range(count):
                for subject in subjects if number % 2 else reversed(subjects):
                    path = f"ab/{number % 500}"
                    start = time.perf_counter()
                    subject.write(path, (data for _ in range(pieces)))
                    written = time.perf_counter()
                    subject.read(path, whole=pieces == 1)
                    times.setdefault((type(subject), "write"), []).append(written - start)
                    times.setdefault((type(subject), "read"), []).append(time.perf_counter() - written)
            for name in ("write", "read"):
                plain, ours = (statistics.median(times[kind, name]) for kind in (PlainOs, Ours))
                print(f"{name:5} {case:12}  plain os {plain * 1e3:8.3f} ms  Storage {ours * 1e3:8.3f} ms", end="")
                print(f"  {plain / ours:5.2f} x plain os")
            print(f"memory: {memory('VmHWM') - before:.0f} MB above the start")


if __name__ == "__main__":
    main()
