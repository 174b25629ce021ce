"""Commands for posts."""

import sys

import click
import svcs
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy.orm import Session

from app.accounts.models import find_user
from app.blog.csv_files import UnusableFile
from app.blog.forms import check_rows
from app.blog.models import insert_posts
from app.command_line import WrongInput
from app.services import transaction

posts = AppGroup("posts", help="The posts of the blog.")


@posts.command("import")
@click.argument("file", type=click.Path())
@click.option("--author", required=True, help="The user whose posts they will be.")
def import_file(file: str, author: str) -> None:
    """Import the rows of the CSV file FILE as posts, all of them or none.

    Its first row names the columns title and body.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    session = svcs.flask.get(Session)
    user = find_user(author)
    if user is None:
        raise WrongInput(f"there is no user called {author}")
    session.commit()  # Nobody's writes shall wait while the file is read.
    columns = ("checking", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty()
    try:
        with (
            open(file, "rb") as stream,  # noqa: PTH123
            Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress,
        ):
            task = progress.add_task("checking")
            rows, errors = check_rows(stream, lambda done, total: progress.update(task, completed=done, total=total))
    except OSError as error:
        raise WrongInput(f"{file}: {error.strerror or error}") from None
    except UnusableFile as error:
        raise click.ClickException(f"{file}: {error}") from None
    for line in errors:
        click.echo(line, err=True)
    if errors:
        raise click.ClickException(f"nothing is imported, errors: {len(errors)}")
    with transaction(current_app):
        insert_posts(user.id, rows)
    click.echo(f"posts imported: {len(rows)}")
