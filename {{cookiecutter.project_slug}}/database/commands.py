"""`main.py db`: Alembic's own commands on the configured database, with errors of one line, and `drop`."""

from pathlib import Path
from typing import Any

import click

from config import feature_names, find_app_dir
from config.privileges import become_service_user


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, no_args_is_help=True
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [OPTIONS]")
def db(words: tuple[str, ...]) -> None:
    """Migrate the database. COMMAND is one of Alembic's, among them:

    \b
    upgrade             apply all migrations that are new
    downgrade REVISION  undo migrations down to REVISION; blog@base: all of a feature
    revision -m TEXT    write migrations from what the models say and the tables lack
    current             show the revisions that the database is at
    check               exit with 1 if the models say something that no migration does

    \b
    drop FEATURE        delete the tables of a feature, after asking (--yes: at once)
    """  # noqa: D301  (click wants the character itself, which ends its wrapping of lines)
    from alembic.config import CommandLine
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    from database.migrations import alembic_config

    become_service_user(find_app_dir())
    try:
        if words[0] == "drop":
            drop.main(words[1:], "python main.py db drop", standalone_mode=False)
            return
        try:
            ScriptDirectory.from_config(alembic_config()).get_heads()
        except KeyError as error:
            reason = f"database/versions/: found no revision {error}, which another one follows"
            raise click.ClickException(reason) from None
        alembic = CommandLine("python main.py db")
        options = alembic.parser.parse_args([*words, "heads"] if words == ("upgrade",) else words)
        options.autogenerate, options.raiseerr = True, True
        alembic.run_cmd(alembic_config(), options)
    except CommandError as error:
        raise click.ClickException(str(error).replace("to date.", "to date. Run: python main.py db upgrade")) from None


@click.command()
@click.argument("feature")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(feature: str, yes: bool) -> None:
    """Delete the tables of FEATURE, with all that is in them."""
    from alembic import command
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import func, inspect, select, table

    from database.branches import branch_of, dependents, tables_of
    from database.migrations import alembic_config

    if feature not in feature_names():
        raise click.ClickException(f"{feature!r}: no folder of app/, expected one of {', '.join(feature_names())}")
    scripts = ScriptDirectory.from_config(alembic_config())
    others, versions = dependents(feature, scripts), Path(scripts.dir, "versions")
    lost: list[str] = []

    def look(_revision: Any, context: Any) -> list[Any]:
        names, found = tables_of(feature, context.connection, versions), inspect(context.connection)
        for (_, name), keys in found.get_multi_foreign_keys().items():
            if name not in names and {key["referred_table"] for key in keys} & set(names):
                others.add(branch_of(str(name), versions))
        for name in names:
            rows = context.connection.scalar(select(func.count()).select_from(table(name)))
            lost.append(f"{name} ({rows:,} rows)")
        return []

    with EnvironmentContext(alembic_config(), scripts, fn=look):
        scripts.run_env()
    if others:
        raise click.ClickException(f"{feature}: its tables are referred to by {', '.join(sorted(others))}")
    if not lost:
        click.echo(f"{feature}: has no tables here")
        return
    if not yes:
        click.confirm(f"This deletes {', '.join(lost)}. Go on?", abort=True, err=True)
    command.downgrade(alembic_config(), f"{feature}@base")
    click.echo(f"deleted: {', '.join(lost)}")
