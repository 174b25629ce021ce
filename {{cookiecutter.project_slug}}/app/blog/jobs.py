"""Jobs that import and export posts."""

import dramatiq
import svcs
from sqlalchemy import insert
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.blog.forms import COLUMNS, MOST_ROWS, PostForm
from app.blog.models import Post, count_posts, each_post
from app.blog.settings import Blog
from app.csv_files import read_rows, write_rows
from app.transfers import counted, give_up_transfer, unfinished
from storage.disks import Disks

MOST_MISTAKES = 100


@dramatiq.actor(max_retries=5, on_retry_exhausted=give_up_transfer.actor_name)
def import_posts(key: str) -> None:
    """Turn the rows of a CSV file into posts: all of them, or none if any breaks the rules of the form."""
    if not (transfer := unfinished(key, lock=False)):
        return
    posts: list[dict[str, object]] = []
    mistakes: list[tuple[int, str, str]] = []
    with svcs.flask.get(Disks)[transfer.disk].reader(transfer.file) as file:
        for number, row in counted(transfer, read_rows(file, COLUMNS, MOST_ROWS)):
            form = PostForm(MultiDict(row), meta={"csrf": False})
            form.validate()
            mistakes += [(number, name, message) for name, messages in form.errors.items() for message in messages]
            posts.append({"author_id": transfer.owner_id, "title": form.title.data, "body": form.body.data})
    most = svcs.flask.get(Blog).most_posts
    if not mistakes and count_posts(transfer.owner_id) + len(posts) > most:
        mistakes = [(1, "", f"An account may have {most:,} posts; with these, yours would have more.")]
    # Asked again, because another worker may have taken over the job and ended it meanwhile.
    if locked := unfinished(key, lock=True):
        locked.state, locked.mistakes = "refused" if mistakes else "done", mistakes[:MOST_MISTAKES]
        if not mistakes:
            svcs.flask.get(Session).execute(insert(Post), posts)


@dramatiq.actor(max_retries=5, on_retry_exhausted=give_up_transfer.actor_name)
def export_posts(key: str) -> None:
    """Write all posts of a user to a CSV file."""
    if not (transfer := unfinished(key, lock=False)):
        return
    with svcs.flask.get(Disks)[transfer.disk].writer(transfer.file) as file:
        write_rows(file, COLUMNS, counted(transfer, each_post(transfer.owner_id)))
    if locked := unfinished(key, lock=True):
        locked.state = "done"
