"""The pages of the blog."""

import shutil

import svcs
from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required
from sqlalchemy.orm import Session

from app.blog.forms import ImportForm, PostForm
from app.blog.jobs import export_posts, import_posts
from app.blog.models import POSTS, Post, count_posts, find_post
from app.blog.settings import Blog
from app.extensions import accepts_files, rate_limited, require_room
from app.paging import requested_page
from app.transfers import new_transfer
from database import utc_now
from storage.disks import Disks

blueprint = Blueprint("blog", __name__, template_folder="templates")


def index() -> ResponseReturnValue:
    return render_template("blog/index.html", page=requested_page(POSTS, Post.id))


@blueprint.get("/posts/<int:post_id>")
def show(post_id: int) -> ResponseReturnValue:
    return render_template("blog/post.html", post=_post_or_404(post_id))


@blueprint.route("/posts/new", methods=["GET", "POST"])
@login_required
@rate_limited(lambda: svcs.flask.get(Blog).post_limit)
def new() -> ResponseReturnValue:
    form = PostForm()
    if not form.validate_on_submit():
        return render_template("blog/edit.html", form=form, post=None), 422 if form.is_submitted() else 200
    require_room(count_posts(current_user.id), svcs.flask.get(Blog).most_posts, "posts")
    post = Post(author_id=current_user.id, title=form.title.data, body=form.body.data)
    session = svcs.flask.get(Session)
    session.add(post)
    session.flush()
    flash("Your post is published.")
    return redirect(url_for("blog.show", post_id=post.id))


@blueprint.route("/posts/<int:post_id>/edit", methods=["GET", "POST"])
@login_required
@rate_limited(lambda: svcs.flask.get(Blog).post_limit)
def edit(post_id: int) -> ResponseReturnValue:
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
def delete(post_id: int) -> ResponseReturnValue:
    svcs.flask.get(Session).delete(_own_post(post_id))
    flash("Your post is deleted.")
    return redirect(url_for("index"))


@blueprint.route("/posts/import", methods=["GET", "POST"])
@accepts_files
@login_required
@rate_limited("transfer")
def import_file() -> ResponseReturnValue:
    """Store a CSV file; a job checks its rows and imports them."""
    form = ImportForm()
    if not form.validate_on_submit():
        return render_template("blog/import.html", form=form), 422 if form.is_submitted() else 200
    transfer = new_transfer("batches", "posts.csv", total=form.rows)
    with svcs.flask.get(Disks)[transfer.disk].writer(transfer.file) as file:
        shutil.copyfileobj(form.file.data.stream, file)
    import_posts.send(transfer.id)
    return redirect(url_for("transfer", key=transfer.id))


@blueprint.post("/posts/export")
@login_required
@rate_limited("transfer")
def export() -> ResponseReturnValue:
    """Have a job write one's own posts to a CSV file."""
    name = f"posts-{current_user.username}-{utc_now():%Y-%m-%d}.csv"
    transfer = new_transfer("exports", name, total=count_posts(current_user.id))
    export_posts.send(transfer.id)
    return redirect(url_for("transfer", key=transfer.id))


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
