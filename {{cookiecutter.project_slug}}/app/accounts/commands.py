"""Commands for accounts: making them, new passwords, and who is an administrator."""

import logging
import os
import sys

import click
import svcs
from flask import current_app
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.accounts.forms import RegisterForm
from app.accounts.models import User, find_user, new_session_key
from app.accounts.passwords import hash_password
from app.command_line import ServiceGroup, WrongInput, as_json, print_rows
from app.services import transaction
from config import Settings

audit = logging.getLogger("app.audit")

PROMPT_NOTE = "The password is asked for twice, or is one line of the standard input if that is no terminal."


@click.group(cls=ServiceGroup)
def user() -> None:
    """Accounts, and who of them is an administrator."""


@user.command(epilog=PROMPT_NOTE)
@click.argument("name")
@click.option("--email", default="", help="The address, which may be left out here.")
@click.option("--admin", is_flag=True, help="Make it an administrator, who may use the page /ops.")
def create(name: str, email: str, admin: bool) -> None:
    """Make an account, by the rules of the registration page."""
    if find_user(_text(name, "the name").strip()):
        raise WrongInput(f"{name!r}: this name is taken")
    form = _checked(name, email, _read_password(), "username", "password", *(["email"] if email else []))
    account = User(
        username=form.username.data,
        email=form.email.data or "",
        password_hash=_hash(form.password.data or ""),
        is_admin=admin,
    )
    try:
        with transaction(current_app) as session:
            session.add(account)
    except IntegrityError:
        raise WrongInput(f"{account.username}: this name is taken") from None
    _note("user.create", account, admin=admin)
    click.echo(f"{account.username}: made{', an administrator' if admin else ''}")


@user.command(epilog=PROMPT_NOTE)
@click.argument("name")
def password(name: str) -> None:
    """Give an account another password, and end all its sessions."""
    found = _find(name)
    form = _checked(found.username, found.email, _read_password(), "password")
    hashed = _hash(form.password.data or "")
    with transaction(current_app):
        account = _find(name)
        account.password_hash, account.session_key = hashed, new_session_key()
    _note("user.password", account)
    click.echo(f"{account.username}: has a new password, and is logged out everywhere")


@user.command()
@click.argument("name")
@click.option("--remove", is_flag=True, help="It is an administrator no more.")
def admin(name: str, remove: bool) -> None:
    """Make an account an administrator, who may use the page /ops."""
    with transaction(current_app):
        account = _find(name)
        account.is_admin = not remove
    _note("user.admin", account, admin=account.is_admin)
    click.echo(f"{account.username}: is {'no' if remove else 'an'} administrator")


@user.command("list")
@as_json
def list_users(as_json: bool) -> None:
    """All accounts, by name."""
    found = svcs.flask.get(Session).scalars(select(User).order_by(User.username))
    rows = [(row.username, row.is_admin, row.created, row.email) for row in found]
    print_rows(("name", "admin", "created", "email"), rows, as_json=as_json)


def _note(action: str, account: User, **fields: bool) -> None:
    """Who did it is the machine's user: nobody logs in here."""
    audit.info(action, extra={"user": f"uid {os.getuid()}", "account": account.username, **fields})


def _find(name: str) -> User:
    account = find_user(_text(name, "the name").strip())
    if account is None:
        raise WrongInput(f"{name!r}: there is no such account; see: python main.py user list")
    return account


def _read_password() -> str:
    """Never from an argument, which every user of the machine can see."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return _text(sys.stdin.buffer.readline().decode(errors="surrogateescape").rstrip("\r\n"), "the password")


def _text(value: str, what: str) -> str:
    """A text that can be stored; Python keeps bytes that are none in halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WrongInput(f"{what} is not UTF-8") from None
    return value


def _checked(name: str, email: str, password: str, *fields: str) -> RegisterForm:
    """What the registration page would take.

    Raises:
        WrongInput: it would refuse one of these fields.
    """
    answers = MultiDict({"username": name, "email": email, "password": password})
    form = RegisterForm(answers, meta={"csrf": False})
    form.validate()
    if problems := [f"{field}: {message}" for field in fields for message in form[field].errors]:
        raise WrongInput("; ".join(problems))
    return form


def _hash(password: str) -> str:
    return hash_password(password, svcs.flask.get(Settings).security.argon2)
