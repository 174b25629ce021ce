"""What is unpacked on a host, as root, and what is refused before it can do harm."""

import gzip
import io
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.release import BAD_INPUT, Failure, unpack

FILES = {"pyproject.toml": b'[project]\nname = "shop"\n', "app/main.py": b"print(1)\n" * 1000, "run.sh": b"#!/bin/sh\n"}


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def packed(*more: tarfile.TarInfo, files: dict[str, bytes] = FILES) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            archive.addfile(
                member(name, size=len(content), mode=0o6777 if name == "run.sh" else 0o666, uid=1000),
                io.BytesIO(content),
            )
        for info in more:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return stream.getvalue()


def bomb() -> bytes:
    """A header that says that it has 2 GB, and the first 256 MB of it."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as compressed:
        compressed.write(member("bomb", tarfile.XHDTYPE, size=2 << 30).tobuf(tarfile.USTAR_FORMAT))
        for _ in range(8):
            compressed.write(bytes(32 << 20))
    return stream.getvalue()


def try_to_unpack(folder: Path, artifact: bytes) -> str:
    """Why it is refused; and nothing outside of the release may have changed."""
    path, release = folder / "artifact.tar.gz", folder / "releases/1"
    path.write_bytes(artifact)
    release.mkdir(parents=True)
    with pytest.raises(Failure) as failure:
        unpack(path, release, "shop")
    assert sorted(path.name for path in folder.rglob("*") if release not in (path, *path.parents)) == [
        "artifact.tar.gz",
        "releases",
    ]
    assert failure.value.code == BAD_INPUT
    assert len(str(failure.value).splitlines()) == 1
    return str(failure.value)


def test_files_come_out_as_they_were_and_are_the_administrator_s(tmp_path: Path) -> None:
    (tmp_path / "artifact").write_bytes(packed(member("app", tarfile.DIRTYPE, mode=0o777), member("./a/b", size=3)))
    (release := tmp_path / "release").mkdir()

    unpack(tmp_path / "artifact", release, "shop")

    assert {name: (release / name).read_bytes() for name in FILES} == FILES
    assert (release / "a/b").read_bytes() == b"xxx"
    modes = {name: (release / name).stat().st_mode & 0o7777 for name in FILES}
    assert modes == {"pyproject.toml": 0o644, "app/main.py": 0o644, "run.sh": 0o755}
    assert all((release / name).stat().st_uid == tmp_path.stat().st_uid for name in FILES)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "out of the folder": (lambda: packed(member("../evil")), "'../evil'"),
    "out of the folder, inside": (lambda: packed(member("app/../../evil")), "no release may have"),
    "absolute": (lambda: packed(member("/etc/evil")), "'/etc/evil'"),
    "absolute by its extended header": (
        lambda: packed(member("evil", pax_headers={"path": "/tmp/evil"})),
        "'/tmp/evil'",
    ),
    "link": (lambda: packed(member("evil", tarfile.SYMTYPE, linkname="/etc/passwd")), "expected files"),
    "through a link": (
        lambda: packed(member("dir", tarfile.SYMTYPE, linkname="/tmp"), member("dir/evil")),
        "expected files",
    ),
    "hard link": (lambda: packed(member("evil", tarfile.LNKTYPE, linkname="/etc/passwd")), "expected files"),
    "device": (lambda: packed(member("evil", tarfile.CHRTYPE, devmajor=1, devminor=1)), "expected files"),
    "pipe": (lambda: packed(member("evil", tarfile.FIFOTYPE)), "expected files"),
    "the same file twice": (lambda: packed(member("app/main.py")), "File exists"),
    "a file in a file": (lambda: packed(member("run.sh/evil")), "run.sh"),
    "mark of a live release": (lambda: packed(member("LIVE")), "'LIVE'"),
    "packages": (lambda: packed(member(".venv/bin/python")), "no release may have"),
    "secrets": (lambda: packed(member("deploy/.env")), "no release may have"),
    "data": (lambda: packed(member("data/app.sqlite3")), "no release may have"),
    "a name that no file can have": (lambda: packed(member("evil", pax_headers={"path": "a\0b"})), "null byte"),
    "more than there is": (lambda: oversized(), "at most"),
    "truncated": (lambda: packed()[:-200], "end-of-stream"),
    "truncated in its checksum": (lambda: packed()[:-3], "end-of-stream"),
    "with a flipped bit": (lambda: packed()[:-6] + bytes([packed()[-6] ^ 1]) + packed()[-5:], "CRC"),
    "text": (lambda: b"<h1>Not found</h1>", "gzip"),
    "nothing": (lambda: b"", "empty"),
    "another application's": (
        lambda: packed(files={"pyproject.toml": b'[project]\nname = "other"\n'}),
        "found a release of other, expected shop",
    ),
    "no application's": (lambda: packed(files={"readme": b""}), "pyproject.toml"),
}


def oversized() -> bytes:
    """It says that a file has a terabyte."""
    return gzip.compress(member("big", size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_do_harm_or_is_not_whole_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    make, reason = HOSTILE[name]
    assert reason in try_to_unpack(tmp_path, make())


def test_a_header_that_would_fill_the_memory_is_refused_early(tmp_path: Path) -> None:
    artifact = bomb()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert "header" in try_to_unpack(tmp_path, artifact)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kB
