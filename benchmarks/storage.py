"""How fast the project's `Storage` is on a local disk, beside code that calls `os` itself.

Both do the same in turns, file by file, so that both see the same machine. "plain os" is what a careful developer
writes for one service: a temporary file, fsync, rename.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.rows import Row, rounds
from storage import Storage

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
CASES = {"1 kB": (1000, 1, KILOBYTE), "256 MB": (7, 256, MEGABYTE)}
SPEEDS = {
    (does, size): Row(f"Storage {does} files of {size}", "files/s", 0.9, beside="plain os calls, as safe", higher=True)
    for size in CASES
    for does in ("writes", "reads")
}
MEMORY = Row("Memory for a file of 256 MB", "MB", 32)
ROWS = (*SPEEDS.values(), MEMORY)


def memory(field: str) -> float:
    """A line of Linux's account of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def memory_for_a_large_file(root: Path) -> float:
    """Megabytes above the start, in a process that has done nothing before."""
    ours, before = Ours(root), memory("VmRSS")
    ours.write("large", (MEGABYTE for _ in range(256)))
    ours.read("large", whole=False)
    return memory("VmHWM") - before


def measure() -> Iterator[Row]:
    """Small files first, then large ones."""
    with tempfile.TemporaryDirectory() as folder:
        subjects: list[PlainOs | Ours] = [PlainOs(Path(folder, "plain")), Ours(Path(folder, "ours"))]
        for size, (count, pieces, data) in CASES.items():
            times: dict[tuple[type, str], list[float]] = {}
            for number in rounds(count, f"files of {size}"):
                for subject in subjects if number % 2 else reversed(subjects):
                    path = f"ab/{number % 500}"
                    start = time.perf_counter()
                    subject.write(path, (data for _ in range(pieces)))
                    written = time.perf_counter()
                    subject.read(path, whole=pieces == 1)
                    times.setdefault((type(subject), "writes"), []).append(written - start)
                    times.setdefault((type(subject), "reads"), []).append(time.perf_counter() - written)
            for does in ("writes", "reads"):
                # Of medians: what a single small file takes is chance.
                ours, plain = (1 / statistics.median(times[kind, does]) for kind in (Ours, PlainOs))
                yield SPEEDS[does, size].compared([ours], [plain])
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            yield MEMORY.found(process.submit(memory_for_a_large_file, Path(folder, "ours")).result())
