"""Each feature has a branch of migrations, `versions/<feature>/`, and so has the infrastructure."""

from graphlib import TopologicalSorter
from pathlib import Path

from alembic.operations.ops import MigrateOperation, MigrationScript, UpgradeOps
from alembic.script import ScriptDirectory
from alembic.util import msg, rev_id, to_tuple
from sqlalchemy import inspect
from sqlalchemy.engine import Connection

from config import feature_names
from database.base import Base

INFRASTRUCTURE = "infrastructure"


def branch_of(table: str, versions: Path) -> str:
    """The feature whose model, or whose relationship, has the table; if it is gone, the one whose revisions name it."""
    for mapper in Base.registry.mappers:
        between = {one.secondary.description for one in mapper.relationships if one.secondary is not None}
        if table in {mapper.local_table.description, *between}:
            package, _, rest = mapper.class_.__module__.partition(".")
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
        ids = {branch: rev_id() for branch in changes}
        needs = {branch: _needed(branch, changes[branch], versions) for branch in sorted(changes)}
        # What is referred to comes first.
        order = [branch for branch in TopologicalSorter(needs).static_order() if branch in changes]
        directives[:] = [
            _revision(scripts, versions / branch, found.message, changes[branch], ids, needs[branch])
            for branch in order
        ]


def tables_of(branch: str, connection: Connection, versions: Path) -> list[str]:
    """The tables of a branch that the database has."""
    return [table for table in inspect(connection).get_table_names() if branch_of(table, versions) == branch]


def dependents(branch: str, scripts: ScriptDirectory) -> set[str]:
    """The other branches that need this one."""
    places = {script.revision: Path(script.path).parent.name for script in scripts.walk_revisions()}
    found = set()
    for script in scripts.walk_revisions():
        needed = scripts.get_revisions(to_tuple(script.dependencies, default=()))
        if branch in {places[other.revision] for other in needed}:
            found.add(places[script.revision])
    return found - {branch}


def _needed(branch: str, changes: list[MigrateOperation], versions: Path) -> set[str]:
    """The other branches whose tables those of a branch refer to."""
    names = [change.table_name for change in changes]  # type: ignore[attr-defined]
    tables = [Base.metadata.tables[name] for name in names if name in Base.metadata.tables]
    referred = {key.column.table.name for table in tables for key in table.foreign_keys}
    return {branch_of(table, versions) for table in referred} - {branch}


def _revision(
    scripts: ScriptDirectory,
    folder: Path,
    message: str | None,
    changes: list[MigrateOperation],
    ids: dict[str, str],
    needed: set[str],
) -> MigrationScript:
    upgrade, branch, is_new = UpgradeOps(changes), folder.name, not folder.is_dir()
    depends_on = [ids.get(other) or str(scripts.get_revision(f"{other}@head").revision) for other in sorted(needed)]
    return MigrationScript(
        ids[branch],
        upgrade,
        upgrade.reverse(),
        message=message,
        head="base" if is_new else f"{branch}@head",
        branch_label=branch if is_new else None,
        version_path=folder,
        depends_on=tuple(depends_on) or None,
    )
