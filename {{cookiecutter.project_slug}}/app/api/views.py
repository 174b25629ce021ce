"""The pages of the API: its documentation, and one's own tokens."""

from typing import Any

import svcs
from flask import Blueprint, abort, flash, jsonify, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required
from sqlalchemy.orm import Session
from wtforms import BooleanField, IntegerField, StringField
from wtforms.validators import DataRequired, NumberRange

from app.api.models import new_token, tokens_of
from app.audit import audit
from app.extensions import rate_limited, require_room
from app.forms import AtMost, Form
from config import Settings

blueprint = Blueprint("api", __name__, template_folder="templates")
blueprint.add_app_template_global(tokens_of)


class TokenForm(Form):
    name = StringField("What it is for", validators=[DataRequired("Say what it is for."), AtMost(60)])
    writes = BooleanField("Allow it to write")
    days = IntegerField("Days until it ends", default=90, validators=[NumberRange(1, 365, "Give 1 to 365 days.")])


@blueprint.get("/api/openapi.json")
def openapi() -> ResponseReturnValue:
    return jsonify(_document())


@blueprint.get("/api/docs")
def docs() -> ResponseReturnValue:
    return render_template("api/docs.html", document=_document())


@blueprint.route("/tokens/new", methods=["GET", "POST"])
@login_required
@rate_limited("account")
def new() -> ResponseReturnValue:
    """Make a token, and show it this once."""
    form = TokenForm()
    if not form.validate_on_submit():
        return render_template("api/token.html", form=form), 422 if form.is_submitted() else 200
    require_room(len(tokens_of(current_user)), 20, "tokens")
    scope = "write" if form.writes.data else "read"
    token, text = new_token(current_user, form.name.data or "", scope, form.days.data or 1)
    audit("token.add", number=token.id, scope=scope)
    return render_template("api/token.html", token=token, text=text), 201


@blueprint.post("/tokens/<int:number>/end")
@login_required
def end(number: int) -> ResponseReturnValue:
    token = next((token for token in tokens_of(current_user) if token.id == number), None)
    if token is None:
        abort(404, "You have no such token.")
    svcs.flask.get(Session).delete(token)
    audit("token.end", number=number)
    flash(f"The token {token.name} has ended.")
    return redirect(url_for("accounts.profile", username=current_user.username))


def _document() -> Any:
    # Here, because no other request, job or command should wait for spectree.
    from app.api.document import openapi

    return openapi(svcs.flask.get(Settings).app.name)
