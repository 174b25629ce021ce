"""How fast the project's `Storage` is on a local disk, beside code that calls `os` itself and beside two libraries.

`make bench` runs it. All are measured in turns, in any order, each round in a process of its own; the figures are
medians. "plain os" is what a careful developer writes for one service: a temporary file, fsync, rename. The libraries
do not fsync, and fsspec writes in place.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import fsspec.implementations.local
import obstore
import obstore.store

PROJECT = Path(__file__).resolve().parent.parent / "{{cookiecutter.project_slug}}"
sys.path.insert(0, str(PROJECT))
sys.dont_write_bytecode = True
from storage import Storage  # noqa: E402

ROUNDS = 7
SMALL = [f"ab/{number:04}.bin" for number in range(1000)]
KILOBYTE = os.urandom(1024)
CHUNK = os.urandom(1 << 20)
CHUNKS = 256
LISTED = 100_000


class Subject(ABC):
    """Something that keeps files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Make the file."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Its content."""

    @abstractmethod
    def write_stream(self, path: str, chunks: Iterator[bytes]) -> None:
        """Make the file of what comes."""

    @abstractmethod
    def read_stream(self, path: str) -> int:
        """Read it a megabyte at a time; returns its size."""

    @abstractmethod
    def count(self) -> int:
        """How many files a listing with sizes and times holds."""


class PlainOs(Subject):
    """The standard library, without checks of any path."""

    def write(self, path: str, data: bytes) -> None:
        self.write_stream(path, iter([data]))

    def read(self, path: str) -> bytes:
        with open(f"{self.root}/{path}", "rb") as file:
            return file.read()

    def write_stream(self, path: str, chunks: Iterator[bytes]) -> None:
        target = f"{self.root}/{path}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.root)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(descriptor)
            os.chmod(temporary, 0o640)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    def read_stream(self, path: str) -> int:
        with open(f"{self.root}/{path}", "rb") as file:
            return sum(map(len, iter(lambda: file.read(1 << 20), b"")))

    def count(self) -> int:
        return sum(1 for _ in self._walk())

    def _walk(self) -> Iterator[tuple[str, int, float]]:
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            for name in sorted(names):
                status = os.stat(f"{folder}/{name}")
                yield f"{folder}/{name}", status.st_size, status.st_mtime


class Ours(Subject):
    """The project's storage."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.storage = Storage(root.as_uri())

    def write(self, path: str, data: bytes) -> None:
        self.storage.write(path, data)

    def read(self, path: str) -> bytes:
        return bytes(self.storage.read(path))

    def write_stream(self, path: str, chunks: Iterator[bytes]) -> None:
        with self.storage.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def read_stream(self, path: str) -> int:
        with self.storage.open(path) as file:
            return sum(map(len, iter(lambda: file.read(1 << 20), b"")))

    def count(self) -> int:
        return sum(1 for _ in self.storage.list())


class Obstore(Subject):
    """obstore alone, on its local store."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.store = obstore.store.LocalStore(root)

    def write(self, path: str, data: bytes) -> None:
        obstore.put(self.store, path, data)

    def read(self, path: str) -> bytes:
        return bytes(obstore.get(self.store, path).bytes())

    def write_stream(self, path: str, chunks: Iterator[bytes]) -> None:
        obstore.put(self.store, path, chunks)

    def read_stream(self, path: str) -> int:
        return sum(map(len, obstore.get(self.store, path).stream(min_chunk_size=1 << 20)))

    def count(self) -> int:
        return sum(map(len, obstore.list(self.store, chunk_size=1000)))


class Fsspec(Subject):
    """fsspec's local file system."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.files = fsspec.implementations.local.LocalFileSystem(auto_mkdir=True)

    def write(self, path: str, data: bytes) -> None:
        self.files.pipe_file(f"{self.root}/{path}", data)

    def read(self, path: str) -> bytes:
        return bytes(self.files.cat_file(f"{self.root}/{path}"))

    def write_stream(self, path: str, chunks: Iterator[bytes]) -> None:
        with self.files.open(f"{self.root}/{path}", "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def read_stream(self, path: str) -> int:
        with self.files.open(f"{self.root}/{path}", "rb") as file:
            return sum(map(len, iter(lambda: file.read(1 << 20), b"")))

    def count(self) -> int:
        return len(self.files.find(str(self.root), detail=True))


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "plain os": PlainOs,
    "Storage": Ours,
    "obstore": Obstore,
    "fsspec": Fsspec,
}


def write_small(subject: Subject) -> None:
    """1,000 files of 1 kB."""
    for path in SMALL:
        subject.write(path, KILOBYTE)


def read_small(subject: Subject) -> None:
    """The same files."""
    for path in SMALL:
        assert len(subject.read(path)) == len(KILOBYTE)


def write_large(subject: Subject) -> None:
    """256 MB as a stream."""
    subject.write_stream("large", (CHUNK for _ in range(CHUNKS)))


def read_large(subject: Subject) -> None:
    """The same file, as a stream."""
    assert subject.read_stream("large") == CHUNKS * len(CHUNK)


def list_all(subject: Subject) -> None:
    """100,000 entries of one folder, sorted where the subject sorts."""
    assert subject.count() >= LISTED


CASES: dict[str, Callable[[Subject], None]] = {
    "write 1,000 x 1 kB": write_small,
    "read 1,000 x 1 kB": read_small,
    "write 256 MB": write_large,
    "read 256 MB": read_large,
    "list 100,000": list_all,
}


def measure(name: str, root: Path, case: str) -> tuple[float, float]:
    """Seconds, and megabytes of memory above the start, of one case in this process."""
    subject = SUBJECTS[name](root)
    os.sync()  # What others have written is not this one's to wait for.
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew from here.
    before = memory("VmRSS")
    start = time.perf_counter()
    CASES[case](subject)
    return time.perf_counter() - start, memory("VmHWM") - before


def memory(field: str) -> float:
    """A line of Linux's account of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """Print the table."""
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "listed"
        (listed / "one folder").mkdir(parents=True)
        for number in range(LISTED):
            (listed / f"one folder/{number:06}").touch()
        for turn in range(ROUNDS):
            for case in CASES:
                for name in random.sample(list(SUBJECTS), len(SUBJECTS)):
                    root = listed if case.startswith("list") else Path(temporary) / f"{name}-{turn}"
                    root.mkdir(exist_ok=True)
                    with get_context("spawn").Pool(1) as pool:
                        result = pool.apply(measure, (name, root, case))
                    results.setdefault((case, name), []).append(result)
            for name in SUBJECTS:
                (Path(temporary) / f"{name}-{turn}" / "large").unlink()

    print(f"{'':20}" + "".join(f"{name:>26}" for name in SUBJECTS))
    for case in CASES:
        plain = statistics.median(seconds for seconds, _ in results[case, "plain os"])
        cells = []
        for name in SUBJECTS:
            seconds = statistics.median(seconds for seconds, _ in results[case, name])
            peak = max(peak for _, peak in results[case, name])
            cells.append(f"{seconds * 1000:6.0f} ms {plain / seconds:5.2f} x {peak:4.0f} MB")
        print(f"{case:20}" + "".join(f"{cell:>26}" for cell in cells))
    print("\nx: speed beside plain os, larger is faster. MB: peak of memory above the start.")


if __name__ == "__main__":
    main()
