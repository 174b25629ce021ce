"""Commands for the app folder."""

import json
import shlex
import sys
from pathlib import Path

import click

from config.appdir import MAKE, AppDir
from config.loading import find_app_dir

of_path = click.option("--path", help="The folder, if it is not the configured one.")
of_user = click.option("--user", help="Who the service runs as, and owns what it writes. As it is, if not given.")
of_group = click.option("--group", help="Who may read it. As it is, or the user's own, if not given.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def appdir() -> None:
    """The folder that holds config, data and logs."""


@appdir.command()
@of_path
@of_user
@of_group
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would be changed.")
@as_json
def make(path: str | None, user: str | None, group: str | None, dry_run: bool, as_json: bool) -> None:
    """Make what is missing, with a fresh secret, and mend modes and owners; what is in files stays as it is.

    Exits with 2, and a line for each reason, if that cannot be done.
    """
    folder = _folder(path)
    changes = folder.make(user, group, dry_run=dry_run)
    if as_json:
        rows = [{"path": str(change.path), "change": change.done} for change in changes]
        click.echo(json.dumps({"path": str(folder.path), "changes": rows}, indent=2))
        return
    for change in changes:
        click.echo(f"{change.path}: {'would be ' if dry_run else ''}{change.done}")
    if not (dry_run and changes):
        click.echo(f"ok: {folder.path}")


@appdir.command()
@of_path
@of_user
@of_group
@as_json
def check(path: str | None, user: str | None, group: str | None, as_json: bool) -> None:
    """Exit with 0 if there is nothing to mend, with 1 and a line for each thing if there is.

    Nothing is changed. A folder that `make` would refuse is exit code 2.
    """
    folder = _folder(path)
    options = {"--path": path, "--user": user, "--group": group}
    given = [word for name, value in options.items() if value is not None for word in (name, value)]
    findings = folder.check(user, group, mend=" ".join(filter(None, (MAKE, shlex.join(given)))))
    if as_json:
        rows = [{"path": str(at), "finding": found, "mend": mend} for at, found, mend in findings]
        click.echo(json.dumps({"path": str(folder.path), "findings": rows}, indent=2))
    else:
        for at, found, mend in findings:
            click.echo(f"{at}: {found}; run `{mend}`")
        if not findings:
            click.echo(f"ok: {folder.path}")
    sys.exit(1 if findings else 0)


def _folder(path: str | None) -> AppDir:
    """The folder of that path, which `make` and `check` refuse if it is empty, or the configured one."""
    if path is None:
        return find_app_dir()
    return AppDir(Path(path).absolute() if path else Path())
