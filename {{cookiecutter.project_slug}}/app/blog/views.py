"""The pages of the blog."""

import secrets
import shutil
from datetime import timedelta
from itertools import islice

import svcs
from flask import Blueprint, abort, flash, jsonify, redirect, render_template, request, url_for
from flask_login import current_user, login_required
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from app.accounts.views import TOO_MANY
from app.blog.csv_files import MOST_ROWS, read_report
from app.blog.forms import ImportForm, PostForm
from app.blog.jobs import KEEP_EXPORTS, UPLOADS, export_posts, import_posts
from app.blog.models import AnyTransfer, Post, PostExport, PostImport, Transfer, find_post, find_transfer, page_of_posts
from app.extensions import accepts_files, limiter, rate_limit, wants_json
from database import utc_now
from storage.disks import Disks

blueprint = Blueprint("blog", __name__, template_folder="templates")

MOST_ERRORS = 20
LINK_TIME = timedelta(hours=1)
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


@blueprint.route("/posts/import", methods=["GET", "POST"])
@accepts_files
# Before the login is looked up: SQLite has one writer, so a request that writes would wait for itself to be counted.
@limiter.limit(lambda: rate_limit("post_import"), methods=["POST"], error_message=TOO_MANY)
@login_required
def take_import() -> Page:
    """Take a file of posts; a job checks it and imports them."""
    session = svcs.flask.get(Session)
    # Checking and storing a file may take long; nobody else's writes shall wait for it.
    session.commit()
    form = ImportForm()
    if not form.validate_on_submit():
        page = render_template("blog/import.html", form=form, most_rows=MOST_ROWS)
        return page, 422 if form.is_submitted() else 200
    upload = secrets.token_hex(16)
    with svcs.flask.get(Disks)["default"].writer(f"{UPLOADS}/{upload}") as file:
        shutil.copyfileobj(form.file.data.stream, file)
    transfer = PostImport(author_id=current_user.id, upload=upload)
    session.add(transfer)
    session.flush()
    import_posts.send(transfer.id)
    return redirect(url_for("blog.show_import", number=transfer.id))


@blueprint.get("/posts/imports/<int:number>")
@login_required
def show_import(number: int) -> Page:
    """How far an import is, and what became of it."""
    transfer = _own_transfer(PostImport, number)
    if wants_json():
        return _progress(transfer)
    errors, link = [], ""
    if transfer.errors:
        batches = svcs.flask.get(Disks)["batches"]
        link = batches.url(transfer.report, expires=LINK_TIME)
        with batches.reader(transfer.report) as report:
            errors = list(islice(read_report(report), MOST_ERRORS))
    return render_template("blog/show_import.html", transfer=transfer, errors=errors, link=link)


@blueprint.post("/posts/export")
@limiter.limit(lambda: rate_limit("post_export"), error_message=TOO_MANY)
@login_required
def export() -> Page:
    """Begin to collect all posts of one's own in a file."""
    session = svcs.flask.get(Session)
    name = f"posts-{current_user.username}-{utc_now():%Y-%m-%d}.zip"
    transfer = PostExport(author_id=current_user.id, file_name=name)
    session.add(transfer)
    session.flush()
    export_posts.send(transfer.id)
    return redirect(url_for("blog.show_export", number=transfer.id))


@blueprint.get("/posts/exports/<int:number>")
@login_required
def show_export(number: int) -> Page:
    """How far an export is, and where its file can be had."""
    transfer = _own_transfer(PostExport, number)
    if wants_json():
        return _progress(transfer)
    link = svcs.flask.get(Disks)["exports"].url(transfer.path, expires=LINK_TIME)
    return render_template("blog/show_export.html", transfer=transfer, link=link, days=KEEP_EXPORTS.days)


def _own_transfer(kind: type[AnyTransfer], number: int) -> AnyTransfer:
    # Whether somebody else has one of that number is nobody's business.
    return find_transfer(kind, number, current_user) or abort(404)


def _progress(transfer: Transfer) -> Response:
    """What the script needs that follows an import or export."""
    return jsonify(
        status=transfer.status, done=transfer.done, total=transfer.total, finished=transfer.finished is not None
    )


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
