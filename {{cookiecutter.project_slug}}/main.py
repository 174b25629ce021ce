"""The service's command line. Without a command it runs web, queue and scheduler together."""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from backup.commands import backup
from config import ConfigError, exit_on_problems, find_app_dir, load, require_safe
from config.commands import appdir, config
from config.privileges import become_service_user
from database.commands import db
from storage import StorageError
from storage.commands import storage


class CommandLine(click.Group):
    """The commands below, and then those of the app, which is made when one of them is asked for."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return super().get_command(context, name) or app_commands(context).get_command(context, name)

    def list_commands(self, context: click.Context) -> list[str]:
        with contextlib.suppress(ConfigError):
            return [*self.commands, *app_commands(context).list_commands(context)]
        return list(self.commands)

    def invoke(self, context: click.Context) -> object:
        with exit_on_problems():
            try:
                return super().invoke(context)
            except DBAPIError as error:
                raise click.ClickException(f"database: {' '.join(str(error.orig).split())}") from None
            except BrokenPipeError:
                raise  # Click ends quietly when nothing reads the output any more.
            except (StorageError, OSError) as error:
                raise click.ClickException(str(error)) from None


def app_commands(context: click.Context) -> Any:
    """The commands of the app, in its context."""
    if context.obj is None:
        import svcs

        from app import create_app

        become_service_user(find_app_dir())
        context.obj = create_app(load())
        context.call_on_close(lambda: svcs.flask.close_registry(context.obj))
        context.with_resource(context.obj.app_context())
    return context.obj.cli


@click.group(cls=CommandLine, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(context: click.Context) -> None:
    """Run web, queue and scheduler until Ctrl-C, or one of these commands."""
    if context.invoked_subcommand:
        return
    from honcho.command import main

    settings = load()
    become_service_user(settings.app_dir)
    require_safe(settings)
    os.chdir(Path(__file__).resolve().parent)
    # `python` in the Procfile is this interpreter. What was relative to the caller's folder is not relative to ours.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ |= {"APP_DIR": str(settings.app_dir.path), "PATH": path, "PYTHONUNBUFFERED": "1"}
    # Honcho gives each process another PORT, and links in mails lead to that of the web process.
    os.environ["BASE_URL"] = settings.base_url
    signal.signal(signal.SIGHUP, end_in_silence)
    procfile = "Procfile.dev" if settings.web.reload else "Procfile"
    try:
        main(["--procfile", procfile, "start", "--port", str(settings.web.port)])
    except SystemExit as end:
        # Ctrl-C is how it ends, so that `make dev` reports no error.
        sys.exit(end.code if end.code != 128 + signal.SIGINT else 0)


def end_in_silence(*_: object) -> None:
    """End, although the terminal was closed, and printing would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.raise_signal(signal.SIGTERM)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Check all that the service needs: a line each, with the command that mends it; exit 1 if one failed."""
    from app.check import report

    sys.exit(not report(as_json=as_json))


for command in (appdir, config, db, backup, storage):
    cli.add_command(command)

if __name__ == "__main__":
    cli(prog_name="python main.py")
