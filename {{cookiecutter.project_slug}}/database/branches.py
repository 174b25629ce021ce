"""Each feature has a branch of migrations, `versions/<feature>/`, and so has the infrastructure."""

from collections.abc import Iterable
from pathlib import Path

from alembic.operations.ops import CreateTableOp, MigrateOperation, MigrationScript, UpgradeOps
from alembic.script import ScriptDirectory
from alembic.util import msg, rev_id, to_tuple
from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from config import feature_names
from database.base import Base

INFRASTRUCTURE = "infrastructure"


def branch_of(table: str, versions: Path) -> str:
    """The feature whose model the table is; if the model is gone, the one whose revisions name the table."""
    modules = [mapper.class_.__module__ for mapper in Base.registry.mappers if mapper.local_table.description == table]
    for module in modules:
        package, _, rest = module.partition(".")
        feature = rest.partition(".")[0]
        return feature if package == "app" and feature in feature_names() else INFRASTRUCTURE
    named = (path for path in sorted(versions.glob("*/*.py")) if f'"{table}"' in path.read_text(encoding="utf-8"))
    return next((path.parent.name for path in named), INFRASTRUCTURE)


def split(scripts: ScriptDirectory, directives: list[MigrationScript]) -> None:
    """Alembic has compared all tables: give each branch whose tables have changed a revision of its own.

    With `--head blog@head`, only that branch gets one, to be filled by hand if its tables have not changed.
    """
    versions = Path(scripts.dir, "versions")
    changes: dict[str, list[MigrateOperation]] = {}
    (found,) = directives
    for change in found.upgrade_ops.ops if found.upgrade_ops else ():
        changes.setdefault(branch_of(change.table_name, versions), []).append(change)  # type: ignore[attr-defined]
    if found.head and found.head != "head":
        wanted = found.head.partition("@")[0]
        changes = {wanted: changes.get(wanted, [])}
    if not changes and found.message:
        directives.clear()
        msg("All tables are what the models say. For a revision by hand, add: --head FEATURE@head")
    if changes:
        # Otherwise Alembic would write into no folder but `versions` itself.
        scripts._version_locations = [versions / branch for branch in changes]
        directives[:] = [_revision(scripts, versions, found, *change) for change in sorted(changes.items())]


def tables_of(branch: str, connection: Connection, versions: Path) -> list[str]:
    """The tables of a branch that the database has."""
    return [table for table in inspect(connection).get_table_names() if branch_of(table, versions) == branch]


def dependents(branch: str, scripts: ScriptDirectory) -> set[str]:
    """The other branches that need this one."""
    places = {script.revision: Path(script.path).parent.name for script in scripts.walk_revisions()}
    return {
        places[script.revision]
        for script in scripts.walk_revisions()
        if branch
        in {places[needed] for needed in to_tuple(script.dependencies, default=())} - {places[script.revision]}
    }


def _revision(
    scripts: ScriptDirectory, versions: Path, found: MigrationScript, branch: str, changes: list[MigrateOperation]
) -> MigrationScript:
    upgrade = UpgradeOps(changes)
    is_new = not (versions / branch).is_dir()
    others = {branch_of(table, versions) for table in _referred(changes)} - {branch}
    return MigrationScript(
        rev_id(),
        upgrade,
        upgrade.reverse(),
        message=found.message,
        head="base" if is_new else f"{branch}@head",
        branch_label=branch if is_new else None,
        version_path=versions / branch,
        depends_on=tuple(sorted(str(scripts.get_revision(f"{other}@head").revision) for other in others)) or None,
    )


def _referred(changes: Iterable[MigrateOperation]) -> set[str]:
    """The tables that new tables refer to."""
    tables = [change.to_table() for change in changes if isinstance(change, CreateTableOp)]
    return {key.column.table.name for table in tables for key in table.foreign_keys}
