"""The pages of accounts."""

import secrets
import shutil
from datetime import timedelta

import svcs
from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required, logout_user
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts.account import wanted_address
from app.accounts.forms import LoginForm, PictureForm, RegisterForm
from app.accounts.jobs import UPLOADS, mail_confirmation, make_picture
from app.accounts.links import state_of
from app.accounts.models import User, find_user
from app.accounts.passwords import check_password, hash_password, renew_hash
from app.accounts.sessions import KNOWN, digest, end_sessions, is_this, lock_checked, start_session
from app.audit import audit
from app.extensions import accepts_files, login_manager, rate_limited
from app.removals import remove_later
from config import Settings
from storage.disks import Disks

blueprint = Blueprint("accounts", __name__, template_folder="templates")
login_manager.login_view = "accounts.login"


@blueprint.route("/register", methods=["GET", "POST"])
@rate_limited("register")
@rate_limited("mail", key=wanted_address)
def register() -> ResponseReturnValue:
    if current_user.is_authenticated:
        return redirect(url_for("index"))
    form = RegisterForm()
    if not form.validate_on_submit():
        return render_template("accounts/register.html", form=form), 422 if form.is_submitted() else 200
    hashed = hash_password(form.password.data or "", svcs.flask.get(Settings).security.argon2)
    user = User(username=form.username.data, email=form.email.data, password_hash=hashed)
    database = svcs.flask.get(Session)
    try:
        with database.begin_nested():
            database.add(user)
    except IntegrityError:
        form.username.errors = ["This name is taken."]
        return render_template("accounts/register.html", form=form), 422
    start_session(user)
    mail_confirmation.send(user.id, user.email, state_of(user))
    audit("user.register")
    flash(f"Welcome, {user.username}. Please follow the link in the mail to {user.email}.")
    return redirect(url_for("index"))


def wanted_account() -> str:
    """The account that somebody wants to log in to. A browser that was logged in to it is counted apart.

    So its owner gets in while others guess (OWASP: device cookies). It is a hash, because the text may be anything.
    """
    hashed = digest(request.form.get("username", "").strip().lower())
    return f"{hashed} known" if session.get(KNOWN) == hashed else hashed


@blueprint.route("/login", methods=["GET", "POST"])
@rate_limited("login")
@rate_limited("account", key=wanted_account)
def login() -> ResponseReturnValue:
    """Log in, and go on to the page that asked for it."""
    if current_user.is_authenticated:
        return redirect(url_for("index"))
    form = LoginForm()
    if not form.validate_on_submit():
        return render_template("accounts/login.html", form=form), 422 if form.is_submitted() else 200
    user, password = find_user(form.username.data or ""), form.password.data or ""
    cost = svcs.flask.get(Settings).security.argon2
    if not check_password(user, password, cost) or not user:
        audit("user.login_failed", account=form.username.data)
        form.password.errors = ["User name or password is wrong."]
        return render_template("accounts/login.html", form=form), 422
    following = session.get("next") or url_for("index")
    renew_hash(user, password, cost)
    lock_checked(user)
    start_session(user)
    audit("user.login")
    return redirect(following)


@blueprint.route("/logout", methods=["GET", "POST"])
@login_required
def logout() -> ResponseReturnValue:
    """Ask, then end the session: a copy of the cookie is worthless afterwards."""
    if request.method != "POST":
        return render_template("accounts/logout.html")
    end_sessions(current_user, is_this())
    audit("user.logout")
    known = session.get(KNOWN)
    logout_user()
    session.clear()
    session.permanent, session[KNOWN] = True, known
    flash("You are logged out.")
    return redirect(url_for("index"))


@blueprint.get("/profile/<username>")
def profile(username: str) -> ResponseReturnValue:
    user = find_user(username)
    if user is None:
        abort(404, f"There is no user called {username}.")
    return render_template("accounts/profile.html", user=user)


@blueprint.route("/picture", methods=["GET", "POST"])
@accepts_files
@login_required
@rate_limited("picture")
def picture() -> ResponseReturnValue:
    """Store an upload; a job makes it the picture."""
    form = PictureForm()
    if not form.validate_on_submit():
        return render_template("accounts/picture.html", form=form), 422 if form.is_submitted() else 200
    upload = secrets.token_hex(16)
    with svcs.flask.get(Disks)["default"].writer(f"{UPLOADS}/{upload}") as file:
        shutil.copyfileobj(form.picture.data.stream, file)
    current_user.picture_upload = upload
    make_picture.send(current_user.id, upload)
    flash("Your new picture will be here in a moment.")
    return redirect(url_for("accounts.profile", username=current_user.username))


@blueprint.post("/picture/remove")
@login_required
def remove_picture() -> ResponseReturnValue:
    # Locked, because a job may be about to give the user another picture.
    user = svcs.flask.get(Session).get_one(User, current_user.id, with_for_update=True, populate_existing=True)
    if user.picture:
        remove_later("media", user.picture)
    user.picture = user.picture_upload = None
    flash("Your picture is removed.")
    return redirect(url_for("accounts.profile", username=user.username))


@blueprint.app_template_global()
def picture_url(user: User) -> str:
    """A link to the picture of a user who has one, valid for a day."""
    return svcs.flask.get(Disks)["media"].url(user.picture or "", expires=timedelta(days=1))
