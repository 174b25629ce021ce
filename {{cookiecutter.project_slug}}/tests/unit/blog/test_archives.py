"""What is in the zip files of posts."""

import csv
import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from app.blog.archives import write_archive

WRITTEN = datetime(2026, 1, 31, 12, 30, 58, tzinfo=UTC)


class Pipe(io.RawIOBase):
    """Takes what is written, cannot seek, and keeps its size alone."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


def post(number: int, title: str, body: str = "Text") -> Any:
    return SimpleNamespace(id=number, title=title, body=body, created=WRITTEN)


def archive(*posts: Any) -> zipfile.ZipFile:
    stream = io.BytesIO()
    write_archive(stream, posts, lambda done: None)
    return zipfile.ZipFile(stream)


def test_each_post_is_a_row_and_a_file() -> None:
    with archive(post(1, "Notes", "one\r\ntwo"), post(7, "=More")) as found:
        assert found.testzip() is None
        assert found.namelist() == ["posts/1-Notes.md", "posts/7-More.md", "posts.csv"]
        assert found.read("posts/1-Notes.md").decode() == "# Notes\n\none\r\ntwo\n"
        assert found.getinfo("posts/1-Notes.md").date_time == (2026, 1, 31, 12, 30, 58)
        rows = list(csv.reader(io.StringIO(found.read("posts.csv").decode("utf-8-sig"), newline="")))
    assert rows == [["title", "body"], ["Notes", "one\r\ntwo"], ["=More", "Text"]]


def test_without_posts_there_is_the_table_alone() -> None:
    with archive() as found:
        assert found.namelist() == ["posts.csv"]
        assert found.read("posts.csv").decode("utf-8-sig") == "title,body\r\n"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../etc/passwd", "1-etc_passwd.md"),
        ("C:\\con", "1-Ccon.md"),
        ("/", "1.md"),
        ("..", "1.md"),
        ("日本", "1.md"),
        ("Grüße, Welt!\n", "1-Grue_Welt.md"),
        ("x" * 200, f"1-{'x' * 60}.md"),
    ],
)
def test_names_are_safe_on_every_file_system(title: str, name: str) -> None:
    with archive(post(1, title)) as found:
        assert found.namelist() == [f"posts/{name}", "posts.csv"]


def test_any_number_of_posts_goes_through_little_memory_and_progress_is_told() -> None:
    def posts() -> Iterator[Any]:
        for number in range(260):
            yield post(number, str(number), f"{number} " * 4_000)

    seen: list[int] = []
    stream = Pipe()
    tracemalloc.start()
    write_archive(stream, posts(), seen.append)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == [250, 260]
    assert stream.size > 20_000
    assert peak < 1_000_000
