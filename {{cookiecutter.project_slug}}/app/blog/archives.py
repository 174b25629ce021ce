"""Zip archives of posts."""

import csv
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from sqlalchemy import Row
from werkzeug.utils import secure_filename

from app.blog.csv_files import COLUMNS
from app.blog.forms import STEP


def write_archive(
    stream: BinaryIO, posts: Iterable[Row[int, str, str, datetime]], progress: Callable[[int], object]
) -> None:
    """Write posts as a zip file: all in `posts.csv`, which can be imported again, and each in a Markdown file.

    Args:
        stream: where it goes. It need not seek, and nothing is held in memory but one post.
        posts: number, title, body and time of each.
        progress: is told now and then how many posts are written.
    """
    with ZipFile(stream, "w", ZIP_DEFLATED) as archive, tempfile.TemporaryFile() as table:
        # With a byte order mark, or Excel takes it for Latin-1. Cells that look like formulas stay as they are: what
        # protects spreadsheets from them would be part of the texts when the file is imported again.
        text = io.TextIOWrapper(table, "utf-8-sig", newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        done = 0
        for done, post in enumerate(posts, 1):
            writer.writerow((post.title, post.body))
            info = ZipInfo(_file_name(post.id, post.title), post.created.timetuple()[:6])
            archive.writestr(info, f"# {post.title}\n\n{post.body}\n", ZIP_DEFLATED)
            if done % STEP == 0:
                progress(done)
        progress(done)
        text.detach()
        table.seek(0)
        with archive.open("posts.csv", "w") as entry:
            shutil.copyfileobj(table, entry)


def _file_name(number: int, title: str) -> str:
    """A name that every file system takes, whatever the title holds; the number makes it unique."""
    return f"posts/{'-'.join(filter(None, (str(number), secure_filename(title)[:60])))}.md"
