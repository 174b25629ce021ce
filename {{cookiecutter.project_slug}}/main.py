"""The service's command line. Without a command it runs web, queue and scheduler together."""

import sys

import click

from config import AppDirError, ConfigError, load, require_safe
from config.commands import appdir, config
from database.commands import db
from storage.commands import storage

SECTIONS = {"Run": ["run"], "Set up": ["appdir", "config", "db"], "Look after": ["storage"]}


class CommandLine(click.Group):
    """Shows its commands in sections, and a mistake in the settings as one line a mistake."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; a command that no section names comes last."""
        named = [name for names in SECTIONS.values() for name in names]
        others = [name for name in self.list_commands(context) if name not in named]
        for title, names in {**SECTIONS, "Others": others}.items():
            commands = [(name, self.commands[name].get_short_help_str(80)) for name in names]
            if commands:
                with formatter.section(title):
                    formatter.write_dl(commands)

    def invoke(self, context: click.Context) -> object:
        """Run the command; exit 2 for settings that are wrong, 1 for an app folder that cannot be made."""
        try:
            return super().invoke(context)
        except ConfigError as error:
            click.echo(error, err=True)
            raise SystemExit(2) from None
        except AppDirError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=CommandLine, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run the service, or one of its commands."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@cli.command()
def run() -> None:
    """Web, queue and scheduler together, until Ctrl-C or until one of them stops."""
    from processes import run_together

    settings = load()
    require_safe(settings)
    sys.exit(run_together(settings))


@config.command()
def check() -> None:
    """Exit with 0 if the service can start with its settings, with 1 and a line for each problem if not."""
    import svcs

    from app import create_app

    try:
        settings = load()
        svcs.flask.close_registry(create_app(settings))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"ok: {len(settings.origins)} settings for {settings.environment}")


for command in (appdir, config, db, storage):
    cli.add_command(command)

if __name__ == "__main__":
    cli(prog_name="python main.py")
