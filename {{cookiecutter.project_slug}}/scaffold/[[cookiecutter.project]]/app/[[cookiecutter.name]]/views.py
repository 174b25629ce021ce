"""The pages of [[ cookiecutter.things ]], for the user who is logged in."""

import svcs
from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required
from sqlalchemy.orm import Session

from app.[[ cookiecutter.name ]].forms import [[ cookiecutter.model ]]Form
from app.[[ cookiecutter.name ]].models import [[ cookiecutter.model ]], count_[[ cookiecutter.name ]], find_[[ cookiecutter.one ]], find_[[ cookiecutter.name ]]
from app.[[ cookiecutter.name ]].settings import [[ cookiecutter.settings ]]
from app.extensions import rate_limited, require_room
from app.paging import requested_page
from database import utc_now

LONGEST_SEARCH = 100

blueprint = Blueprint("[[ cookiecutter.name ]]", __name__, template_folder="templates", url_prefix="/[[ cookiecutter.name ]]")


@blueprint.get("")
@login_required
def index() -> ResponseReturnValue:
    text = request.args.get("q", "").strip()[:LONGEST_SEARCH]
    page = requested_page(find_[[ cookiecutter.name ]](current_user.id, text), [[ cookiecutter.model ]].id)
    return render_template("[[ cookiecutter.name ]]/index.html", page=page, text=text)


@blueprint.route("/new", methods=["GET", "POST"])
@login_required
@rate_limited(lambda: svcs.flask.get([[ cookiecutter.settings ]]).write_limit)
def new() -> ResponseReturnValue:
    form = [[ cookiecutter.model ]]Form()
    if not form.validate_on_submit():
        return render_template("[[ cookiecutter.name ]]/edit.html", form=form, row=None), 422 if form.is_submitted() else 200
    require_room(count_[[ cookiecutter.name ]](current_user.id), svcs.flask.get([[ cookiecutter.settings ]]).most, "[[ cookiecutter.things ]]")
    row = [[ cookiecutter.model ]](owner_id=current_user.id)
    fill(row, form)
    svcs.flask.get(Session).add(row)
    flash("Saved.")
    return redirect(url_for("[[ cookiecutter.name ]].index"))


@blueprint.route("/<int:number>/edit", methods=["GET", "POST"])
@login_required
@rate_limited(lambda: svcs.flask.get([[ cookiecutter.settings ]]).write_limit)
def edit(number: int) -> ResponseReturnValue:
    row = own_row(number)
    form = [[ cookiecutter.model ]]Form(obj=row)
    if not form.validate_on_submit():
        return render_template("[[ cookiecutter.name ]]/edit.html", form=form, row=row), 422 if form.is_submitted() else 200
    fill(row, form)
    flash("Saved.")
    return redirect(url_for("[[ cookiecutter.name ]].index"))


@blueprint.post("/<int:number>/delete")
@login_required
def delete(number: int) -> ResponseReturnValue:
    svcs.flask.get(Session).delete(own_row(number))
    flash("Deleted.")
    return redirect(url_for("[[ cookiecutter.name ]].index"))


def own_row(number: int) -> [[ cookiecutter.model ]]:
    """One of the user's own. Those of others are not found either, so that nobody learns which there are."""
    row = find_[[ cookiecutter.one ]](current_user.id, number)
    if row is None:
        abort(404, "There is no such [[ cookiecutter.thing ]]. It may have been deleted.")
    return row


def fill(row: [[ cookiecutter.model ]], form: [[ cookiecutter.model ]]Form) -> None:
    row.title, row.notes = form.title.data or "", form.notes.data or ""
    row.archived = (row.archived or utc_now()) if form.archived.data else None
