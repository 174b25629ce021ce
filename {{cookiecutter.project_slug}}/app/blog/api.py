"""The posts for programs, /api/v1/posts."""

from datetime import datetime
from typing import Annotated, Any

import svcs
from flask import abort, url_for
from flask_login import current_user
from msgspec import Meta, Struct
from sqlalchemy.orm import Session

from app.api import Paging, api_blueprint, operation, page_links, require_match
from app.blog.models import POSTS, Post, count_posts
from app.blog.settings import Blog
from app.extensions import rate_limited, require_room
from app.paging import requested_page, row_number
from database import utc_now

blueprint = api_blueprint("posts", __name__)
# Lists on pages do not show when a post was changed.
WHOLE_POSTS = POSTS.add_columns(Post.updated)


class PostText(Struct, forbid_unknown_fields=True):
    title: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
    body: Annotated[str, Meta(min_length=1, max_length=20_000, pattern=r"\S")]


class PostAnswer(Struct):
    id: int
    title: str
    body: str
    author: str
    created: datetime
    updated: datetime | None


@blueprint.get("")
@operation(query=Paging, answer=list[PostAnswer])
def list_posts() -> Any:
    """List posts, newest first; the Link header has the next and the previous page."""
    page = requested_page(WHOLE_POSTS, Post.id)
    return [answer(row, row.username) for row in page.rows], page_links(page)


@blueprint.get("/<int:post_id>")
@operation(answer=PostAnswer)
def read(post_id: int) -> PostAnswer:
    """Read a post."""
    row = svcs.flask.get(Session).execute(WHOLE_POSTS.where(Post.id == row_number(post_id))).one_or_none()
    return answer(row, row.username) if row else abort(404, "There is no such post.")


@blueprint.post("")
@operation(body=PostText, answer=PostAnswer, status=201)
@rate_limited(lambda: svcs.flask.get(Blog).post_limit)
def create(body: PostText) -> Any:
    """Write a post."""
    require_room(count_posts(current_user.id), svcs.flask.get(Blog).most_posts, "posts")
    post = Post(author_id=current_user.id, title=body.title, body=body.body)
    session = svcs.flask.get(Session)
    session.add(post)
    session.flush()
    return answer(post, current_user.username), {"Location": url_for(".read", post_id=post.id)}


@blueprint.put("/<int:post_id>")
@operation(body=PostText, answer=PostAnswer)
@rate_limited(lambda: svcs.flask.get(Blog).post_limit)
def change(post_id: int, body: PostText) -> PostAnswer:
    """Change a post of your own."""
    post = own_post(post_id)
    post.title, post.body, post.updated = body.title, body.body, utc_now()
    return answer(post, current_user.username)


@blueprint.delete("/<int:post_id>")
@operation(status=204)
def delete(post_id: int) -> None:
    """Delete a post of your own."""
    svcs.flask.get(Session).delete(own_post(post_id))


def answer(post: Any, author: str) -> PostAnswer:
    return PostAnswer(post.id, post.title, post.body, author, post.created, post.updated)


def own_post(post_id: int) -> Post:
    """Locked, so that what `If-Match` was compared with is what changes."""
    post = svcs.flask.get(Session).get(Post, row_number(post_id), with_for_update=True)
    if post is None:
        abort(404, "There is no such post.")
    if post.author_id != current_user.id:
        abort(403, "Only its author can change a post.")
    require_match(answer(post, current_user.username))
    return post
