"""The pages of the blog."""

import svcs
from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask_login import current_user, login_required
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from app.blog.forms import PostForm
from app.blog.models import Post, find_post, page_of_posts
from database import utc_now

blueprint = Blueprint("blog", __name__, template_folder="templates")

Page = str | Response | tuple[str, int]


def index() -> Page:
    """All posts, newest first."""
    page = page_of_posts(before=request.args.get("before", type=int), after=request.args.get("after", type=int))
    return render_template("blog/index.html", page=page)


@blueprint.get("/posts/<int:post_id>")
def show(post_id: int) -> Page:
    """One post."""
    return render_template("blog/post.html", post=_post_or_404(post_id))


@blueprint.route("/posts/new", methods=["GET", "POST"])
@login_required
def new() -> Page:
    """Write a post."""
    form = PostForm()
    if not form.validate_on_submit():
        return render_template("blog/edit.html", form=form, post=None), 422 if form.is_submitted() else 200
    post = Post(author_id=current_user.id, title=form.title.data, body=form.body.data)
    session = svcs.flask.get(Session)
    session.add(post)
    session.flush()
    flash("Your post is published.")
    return redirect(url_for("blog.show", post_id=post.id))


@blueprint.route("/posts/<int:post_id>/edit", methods=["GET", "POST"])
@login_required
def edit(post_id: int) -> Page:
    """Change a post of one's own."""
    post = _own_post(post_id)
    form = PostForm(obj=post)
    if not form.validate_on_submit():
        return render_template("blog/edit.html", form=form, post=post), 422 if form.is_submitted() else 200
    form.populate_obj(post)
    post.updated = utc_now()
    flash("Your post is changed.")
    return redirect(url_for("blog.show", post_id=post.id))


@blueprint.post("/posts/<int:post_id>/delete")
@login_required
def delete(post_id: int) -> Page:
    """Delete a post of one's own."""
    svcs.flask.get(Session).delete(_own_post(post_id))
    flash("Your post is deleted.")
    return redirect(url_for("index"))


def _post_or_404(post_id: int) -> Post:
    post = find_post(post_id)
    if post is None:
        abort(404, "There is no such post. It may have been deleted.")
    return post


def _own_post(post_id: int) -> Post:
    post = _post_or_404(post_id)
    if post.author_id != current_user.id:
        abort(403, "Only its author can change a post.")
    return post
