"""Commands for migrations: Alembic's own, with errors of one line."""

import click

from config import find_app_dir
from config.privileges import become_service_user


class MigrationGroup(click.Group):
    """Turns Alembic's errors into lines for people."""

    def invoke(self, context: click.Context) -> object:
        """Run the command; exit 1 with one line if Alembic or the database refuses."""
        from alembic.util import CommandError
        from sqlalchemy.exc import DBAPIError

        try:
            return super().invoke(context)
        except CommandError as error:
            raise click.ClickException(str(error)) from None
        except DBAPIError as error:
            raise click.ClickException(f"database: {error.orig}") from None


@click.group(cls=MigrationGroup)
def db() -> None:
    """Migrate the database."""
    become_service_user(find_app_dir())


@db.command()
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Apply migrations, up to REVISION or to the newest."""
    from alembic import command

    from database.migrations import alembic_config

    command.upgrade(alembic_config(), revision)
    command.current(alembic_config())


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision")
def downgrade(revision: str) -> None:
    """Undo migrations, down to REVISION; `-1` undoes one, `base` all."""
    from alembic import command

    from database.migrations import alembic_config

    command.downgrade(alembic_config(), revision)
    command.current(alembic_config())


@db.command()
@click.option("-m", "--message", required=True, help="What the revision does, in a few words.")
@click.option("--empty", is_flag=True, help="Write the steps by hand instead of comparing models and tables.")
def revision(message: str, empty: bool) -> None:
    """Write a new migration from what the models say and the tables lack."""
    from alembic import command

    from database.migrations import alembic_config

    command.revision(alembic_config(), message, autogenerate=not empty)


@db.command()
def current() -> None:
    """Show the revision that the database is at."""
    from alembic import command

    from database.migrations import alembic_config

    command.current(alembic_config())


@db.command()
def check() -> None:
    """Exit with 1 if the models say something that no migration does."""
    from alembic import command

    from database.migrations import alembic_config

    command.check(alembic_config())
