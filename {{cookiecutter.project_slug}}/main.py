"""The service's command line. Without a command it runs web, queue and scheduler together."""

import contextlib
import os
import sys
from pathlib import Path

import click

from backup.commands import backup
from config import ConfigError, find_app_dir, load, require_safe
from config.appdir_commands import appdir
from config.commands import config
from config.privileges import become_service_user
from database.commands import db
from storage.commands import storage

SECTIONS = {
    "Run": ["run"],
    "Set up": ["appdir", "config", "db"],
    "Look after": ["backup", "storage", "queue", "schedule", "user"],
}


class CommandLine(click.Group):
    """Its own commands and those of the app, in sections; a mistake in the settings is one line a mistake."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command of ours, which needs no app, or one of the app's, which runs in its context."""
        return super().get_command(context, name) or app_commands(context).get_command(context, name)

    def list_commands(self, context: click.Context) -> list[str]:
        """All names; only ours if the settings are wrong."""
        names = set(super().list_commands(context))
        with contextlib.suppress(ConfigError):
            names.update(app_commands(context).list_commands(context))
        return sorted(names)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; a command that no section names comes last."""
        known = {name: self.get_command(context, name) for name in self.list_commands(context)}
        named = [name for names in SECTIONS.values() for name in names]
        others = [name for name in known if name not in named]
        for title, names in {**SECTIONS, "Features": others}.items():
            commands = [(name, command.get_short_help_str(80)) for name in names if (command := known.get(name))]
            if commands:
                with formatter.section(title):
                    formatter.write_dl(commands)

    def invoke(self, context: click.Context) -> object:
        """Run the command; exit 2 for settings that are wrong, or an app folder that cannot be made."""
        try:
            return super().invoke(context)
        except ConfigError as error:
            click.echo(error, err=True)
            raise SystemExit(2) from None


def app_commands(context: click.Context) -> click.Group:
    """The commands of the app, which is made once, for as long as this command line runs."""
    root = context.find_root()
    if "app" not in root.meta:
        import svcs

        from app import create_app

        become_service_user(find_app_dir())
        app = root.meta["app"] = create_app(load())
        root.call_on_close(lambda: svcs.flask.close_registry(app))
        root.with_resource(app.app_context())
    commands: click.Group = root.meta["app"].cli
    return commands


@click.group(cls=CommandLine, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run the service, or one of its commands."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@cli.command()
def run() -> None:
    """Web, queue and scheduler together, until Ctrl-C or until one of them stops."""
    settings = load()
    become_service_user(settings.app_dir)
    require_safe(settings)
    root = Path(__file__).resolve().parent
    # `python` in the Procfile is this interpreter.
    environ = {
        **os.environ,
        "APP_DIR": str(settings.app_dir.path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
    }
    os.chdir(root)
    os.execve(sys.executable, [sys.executable, "-m", "honcho", "start"], environ)  # noqa: S606  (fixed arguments)


@config.command()
def check() -> None:
    """Exit with 0 if the service can start with its settings, with 1 and a line for each problem if not."""
    import svcs

    from app import create_app

    try:
        become_service_user(find_app_dir())
        settings = load()
        svcs.flask.close_registry(create_app(settings))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"ok: {len(settings.origins)} settings for {settings.environment}")


for command in (appdir, backup, config, db, storage):
    cli.add_command(command)

if __name__ == "__main__":
    cli(prog_name="python main.py")
