"""The commands of `main.py token`."""

import click
import svcs
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts import User, find_user
from app.api.models import Token, new_token
from app.audit import audit
from app.command_line import as_json, print_rows
from app.services import transaction


@click.group(cls=AppGroup)
def token() -> None:
    """Tokens for the API."""


@token.command()
@click.argument("user")
@click.argument("name")
@click.option(
    "--scope", type=click.Choice(["read", "write"]), default="read", show_default=True, help="What it may do."
)
@click.option("--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="After how many it ends.")
def add(user: str, name: str, scope: str, days: int) -> None:
    """Make a token of an account, and print it this once. NAME says what it is for."""
    if not 0 < len(name) <= 60 or not name.isprintable():
        raise click.ClickException(f"{name!r}: expected a name of at most 60 characters")
    with transaction(current_app):
        owner = find_user(user) if user.isprintable() else None
        if owner is None:
            raise click.ClickException(f"{user!r}: there is no such account; see: python main.py user list")
        made, text = new_token(owner, name, scope, days)
    audit("token.add", account=owner.username, number=made.id, scope=scope)
    click.echo(text)


@token.command("list")
@as_json
def list_tokens(as_json: bool) -> None:
    """List all tokens, also those that have ended today."""
    query = select(Token.id, User.username, Token.name, Token.scope, Token.ends).join(User).order_by(Token.id)
    rows = [tuple(row) for row in svcs.flask.get(Session).execute(query)]
    print_rows(("number", "account", "name", "scope", "ends"), rows, as_json=as_json)


@token.command()
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
def end(number: int) -> None:
    """End the token of that number at once."""
    with transaction(current_app) as session:
        if (found := session.get(Token, number)) is None:
            raise click.ClickException(f"{number}: there is no such token; see: python main.py token list")
        session.delete(found)
    audit("token.end", number=number)
    click.echo(f"{number}: has ended")
