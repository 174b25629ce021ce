"""Commands for accounts: create them, set passwords, and choose administrators."""

import sys

import click
import svcs
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from app.accounts.forms import RegisterForm
from app.accounts.models import User, find_user
from app.accounts.passwords import hash_password
from app.accounts.sessions import end_sessions
from app.audit import audit
from app.command_line import as_json, print_rows
from app.services import transaction
from config import Settings


@click.group(cls=AppGroup)
def user() -> None:
    """Accounts and administrators."""


@user.command()
@click.argument("name")
@click.option("--email", default="", help="The email address, which is optional here.")
@click.option("--admin", is_flag=True, help="Give it the rights of an administrator, who may use the page /ops.")
def create(name: str, email: str, admin: bool) -> None:
    """Create an account, by the rules of the registration page. Asks for its password."""
    form, hashed = _ask_for_password(name, email, "username", "password", *(["email"] if email else []))
    account = User(username=form.username.data, email=form.email.data or "", password_hash=hashed, is_admin=admin)
    if find_user(account.username):
        raise click.ClickException(f"{account.username!r}: this name is taken")
    with transaction(current_app) as session:
        session.add(account)
    _report("user.create", account, "created as an administrator" if admin else "created", admin=admin)


@user.command()
@click.argument("name")
def password(name: str) -> None:
    """Ask for a new password of an account, and end all its sessions."""
    found = _find(name)
    _, hashed = _ask_for_password(found.username, found.email, "password")
    with transaction(current_app):
        account = _find(name)
        account.password_hash = hashed
        end_sessions(account)
    _report("user.password", account, "has a new password and is logged out everywhere")


@user.command()
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take these rights away.")
def admin(name: str, remove: bool) -> None:
    """Give an account the rights of an administrator, who may use the page /ops."""
    with transaction(current_app):
        account = _find(name)
        account.is_admin = not remove
    _report("user.admin", account, f"is {'no' if remove else 'an'} administrator", admin=account.is_admin)


@user.command("list")
@as_json
def list_users(as_json: bool) -> None:
    """List all accounts by name."""
    found = svcs.flask.get(Session).scalars(select(User).order_by(User.username))
    rows = [(row.username, row.is_admin, row.created, row.email) for row in found]
    print_rows(("name", "admin", "created", "email"), rows, as_json=as_json)


def _find(name: str) -> User:
    account = find_user(name.strip()) if name.isprintable() else None
    if account is None:
        raise click.ClickException(f"{name!r}: there is no such account; see: python main.py user list")
    return account


def _ask_for_password(name: str, email: str, *fields: str) -> tuple[RegisterForm, str]:
    """A form whose named fields the registration page would accept, and the hash of its password.

    The password is not an argument of the command, since every user of the machine can read those.
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.buffer.readline().decode(errors="surrogateescape").rstrip("\r\n")
    if not f"{name}{email}{password}".isprintable():
        raise click.ClickException("name, address and password must be printable text in UTF-8")
    form = RegisterForm(MultiDict({"username": name, "email": email, "password": password}), meta={"csrf": False})
    form.validate()
    if problems := [f"{field}: {message}" for field in fields for message in form[field].errors]:
        raise click.ClickException("; ".join(problems))
    return form, hash_password(password, svcs.flask.get(Settings).security.argon2)


def _report(action: str, account: User, outcome: str, **fields: bool) -> None:
    audit(action, account=account.username, **fields)
    click.echo(f"{account.username}: {outcome}")
