"""`main.py db`: Alembic's own commands on the configured database, with errors of one line."""

import click

from config import find_app_dir
from config.privileges import become_service_user


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, no_args_is_help=True
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [OPTIONS]")
def db(words: tuple[str, ...]) -> None:
    """Migrate the database. COMMAND is one of Alembic's, among them:

    \b
    upgrade             apply all migrations that are new
    downgrade REVISION  undo migrations down to REVISION; -1 undoes one, base all
    revision -m TEXT    write a migration from what the models say and the tables lack
    current             show the revisions that the database is at
    check               exit with 1 if the models say something that no migration does
    """  # noqa: D301  (click wants the character itself, which ends its wrapping of lines)
    from alembic.config import CommandLine
    from alembic.util import CommandError

    from database.migrations import alembic_config

    become_service_user(find_app_dir())
    alembic = CommandLine("python main.py db")
    options = alembic.parser.parse_args([*words, "heads"] if words == ("upgrade",) else words)
    options.autogenerate, options.raiseerr = True, True
    try:
        alembic.run_cmd(alembic_config(), options)
    except CommandError as error:
        raise click.ClickException(str(error)) from None
    except KeyError as error:
        raise click.ClickException(
            f"database/versions/: found no revision {error}, which another one follows"
        ) from None
