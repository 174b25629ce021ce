"""The pages on which people look after their account: address, password, sessions, and its end."""

import svcs
from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required, logout_user
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts.forms import AddressForm, ChangePasswordForm, CurrentPasswordForm, EmailForm, NewPasswordForm
from app.accounts.jobs import mail_confirmation, mail_reset
from app.accounts.links import read_token, state_of
from app.accounts.models import User
from app.accounts.passwords import hash_password
from app.accounts.sessions import UserSession, digest, end_sessions, is_current, is_this, lock_checked, start_session
from app.audit import audit
from app.extensions import rate_limited
from app.forms import Form
from app.paging import row_number
from app.removals import remove_later
from config import Settings
from database import utc_now

blueprint = Blueprint("account", __name__, url_prefix="/account", template_folder="templates")


def ask(form: Form, heading: str, button: str, text: str = "") -> ResponseReturnValue:
    """The page of a form whose fields stand one below the other."""
    page = render_template("accounts/form.html", form=form, heading=heading, button=button, text=text)
    return page, 422 if form.is_submitted() else 200


def wanted_address() -> str:
    """The address that a link is asked for, as a hash, because the text may be anything."""
    return digest(request.form.get("email", "").strip().lower())


@blueprint.get("")
@login_required
def show() -> ResponseReturnValue:
    own = select(UserSession, is_this().label("is_this")).where(UserSession.user_id == current_user.id, is_current())
    rows = svcs.flask.get(Session).execute(own.order_by(UserSession.id.desc())).all()
    return render_template("accounts/account.html", rows=rows)


@blueprint.post("/sessions/end", defaults={"session_id": None})
@blueprint.post("/sessions/<int:session_id>/end")
@login_required
def end(session_id: int | None) -> ResponseReturnValue:
    """End one session, or all but this one."""
    which = ~is_this() if session_id is None else UserSession.id == row_number(session_id)
    end_sessions(current_user, which)
    flash("The sessions are ended." if session_id is None else "The session is ended.")
    return redirect(url_for("account.show"))


@blueprint.route("/password", methods=["GET", "POST"])
@login_required
@rate_limited("account")
def password() -> ResponseReturnValue:
    form = ChangePasswordForm(account=current_user)
    if not form.validate_on_submit():
        return ask(form, "Change your password", "Change it", "This ends all your other sessions.")
    user = current_user._get_current_object()
    user.password_hash = hash_password(form.password.data or "", svcs.flask.get(Settings).security.argon2)
    lock_checked(user)
    end_sessions(user)
    start_session(user)
    audit("user.password")
    flash("Your password is changed.")
    return redirect(url_for("account.show"))


@blueprint.route("/address", methods=["GET", "POST"])
@login_required
@rate_limited("mail")
@rate_limited("mail", key=wanted_address)
def address() -> ResponseReturnValue:
    """Send a link to an address, which counts once the link is followed."""
    form = AddressForm(email=current_user.email)
    if not form.validate_on_submit():
        return ask(form, "Your address", "Send the link", "We will mail you a link, which confirms the address.")
    mail_confirmation.send(current_user.id, form.email.data or "", state_of(current_user))
    flash(f"Please follow the link in the mail to {form.email.data}.")
    return redirect(url_for("account.show"))


@blueprint.route("/link/confirm/<token>", methods=["GET", "POST"])
@rate_limited("login")
def confirm(token: str) -> ResponseReturnValue:
    user, address = read_token("confirm", token, lock=request.method == "POST")
    form = Form()
    if not form.validate_on_submit():
        return ask(form, "Confirm the address", "Confirm", f"{address} is the address of the account {user.username}.")
    user.email, user.email_confirmed = address, utc_now()
    audit("user.address", account=user.username)
    flash("The address is confirmed.")
    return redirect(url_for("index"))


@blueprint.route("/forgot", methods=["GET", "POST"])
@rate_limited("mail")
@rate_limited("mail", key=wanted_address)
def forgot() -> ResponseReturnValue:
    """Have a job look for the accounts: whether there is one changes neither this answer nor its time."""
    form = EmailForm()
    if not form.validate_on_submit():
        return ask(form, "Forgot your password?", "Send a link", "We will mail you a link to choose another one.")
    mail_reset.send(form.email.data or "")
    flash("If an account has confirmed this address, a mail is on its way there.")
    return redirect(url_for("accounts.login"))


@blueprint.route("/link/reset/<token>", methods=["GET", "POST"])
@rate_limited("login")
def reset(token: str) -> ResponseReturnValue:
    user, _ = read_token("reset", token, lock=False)
    form = NewPasswordForm(account=user)
    if not form.validate_on_submit():
        return ask(form, f"A new password for {user.username}", "Set it", "This ends all sessions of the account.")
    hashed = hash_password(form.password.data or "", svcs.flask.get(Settings).security.argon2)
    # Again, and locked: another request may have used the link meanwhile.
    user, _ = read_token("reset", token, lock=True)
    user.password_hash = hashed
    end_sessions(user)
    audit("user.reset", account=user.username)
    flash("You have a new password. Please log in with it.")
    return redirect(url_for("accounts.login"))


@blueprint.route("/delete", methods=["GET", "POST"])
@login_required
@rate_limited("account")
def delete() -> ResponseReturnValue:
    """Delete the account; the database deletes what belongs to it, and files follow after a day."""
    form = CurrentPasswordForm()
    if not form.validate_on_submit():
        return ask(form, "Delete your account?", "Delete it for good", "All that is yours here is deleted with it.")
    # Locked, because a job may be about to give it another picture.
    user = svcs.flask.get(Session).get_one(User, current_user.id, with_for_update=True, populate_existing=True)
    if user.picture:
        remove_later("media", user.picture)
    svcs.flask.get(Session).delete(user)
    audit("user.delete")
    logout_user()
    session.clear()
    flash("Your account is deleted.")
    return redirect(url_for("index"))
