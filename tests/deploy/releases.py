"""Artifacts of a generated project as it is, and with faults in it."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from baking import TEMPLATE, run_in
from deploy.machine import made_once
from releasing import GIT, UV

PYTHON = "3.11"
# Paths, and which text is put in the place of which; nothing, for a new file.
Changes = Mapping[str, tuple[str, str]]
# A release that is ready wherever it is tried, and is not as soon as it is live.
NOT_READY = """
    if "/my_service.service" in Path("/proc/self/cgroup").read_text():
        app.view_functions["ops.readyz"] = lambda: ({"checks": {"database": "failed"}}, 503)
"""
MIGRATION = '''"""Revision %(revision)s."""

import sqlalchemy as sa
from alembic import op

revision = "%(revision)s"
down_revision = "%(follows)s"
branch_labels = None
depends_on = None


def upgrade() -> None:
    %(action)s


def downgrade() -> None:
    pass
'''


def migration(revision: str, follows: str, action: str) -> Changes:
    """A revision of the database's schema."""
    text = MIGRATION % {"revision": revision, "follows": follows, "action": action}
    return {f"database/versions/{revision}.py": ("", text)}


def add_column(revision: str, follows: str) -> Changes:
    """A revision that works, and that code before it does not mind."""
    return migration(revision, follows, f'op.add_column("user_account", sa.Column("of_{revision}", sa.Integer()))')


VARIANTS: dict[str, Changes] = {
    "first": {},
    "second": {"app/static/style.css": (":root {", "/* second */\n:root {")},
    "migration": {**add_column("0006", "0005_blog"), **add_column("0007", "0006")},
    "no module": {"app/pages.py": ("from flask", "import nothing_of_that_name\nfrom flask")},
    "import error": {"web.py": ("from app import", "import nothing_of_that_name\nfrom app import")},
    "migration error": {
        **add_column("0006", "0005_blog"),
        **migration("0008", "0006", 'raise RuntimeError("no such luck")'),
    },
    "not ready": {"web.py": ("    metrics.share(app)\n", f"    metrics.share(app)\n{NOT_READY}")},
    "no queue": {"queues.py": ("def main() -> None:\n", 'def main() -> None:\n    sys.exit("no queue today")\n\n')},
}


def bake(folder: Path, slug: str = "my_service") -> Path:
    """A project as its first commit, with the default answers but for its name."""
    answers = ["--no-input", "--accept-hooks", "no", "-o", str(folder), f"project_slug={slug}"]
    succeed(TEMPLATE, TEMPLATE / ".venv/bin/python", "-m", "cookiecutter", str(TEMPLATE), *answers)
    project = folder / slug
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"], ["tag", "base"]):
        succeed(project, "git", *words)
    return project


def pack(project: Path, variant: str, target: Path) -> Path:
    """What `make release` makes of the project with a variant's changes, as `target`/VARIANT.tar.gz."""
    succeed(project, "git", "checkout", "-q", "-f", "--detach", "base")
    number = list(VARIANTS).index(variant)
    version = {"pyproject.toml": ('version = "0.1.0"', f'version = "0.1.{number}"')} if number else {}
    for path, (old, new) in {**VARIANTS[variant], **version}.items():
        file = project / path
        text = file.read_text() if old else ""
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1))
    succeed(project, "git", "add", ".")
    succeed(project, "git", "commit", "-q", "--allow-empty", "-m", variant)
    succeed(project, "make", "release")
    artifact = target / f"{variant.replace(' ', '-')}.tar.gz"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(next((project / "dist").glob(f"*-0.1.{number}.tar.gz")), artifact)
    return artifact


def wheels(project: Path) -> Path:
    """What `make wheels` makes for a host's Python, on first use for these requirements."""
    key = hashlib.sha256((project / "requirements.txt").read_bytes()).hexdigest()[:12]

    def fetch(folder: Path) -> None:
        shared = [f"PYTHON={PYTHON}", f"UV={UV}"]
        succeed(project, "make", "wheels", *shared)
        shutil.copytree(project / "dist/wheels", folder)

    return made_once(f"wheels-{key}", fetch)


def succeed(folder: Path, *command: str | Path) -> None:
    """Run a command that has to succeed."""
    result = run_in(folder, *command, environ=GIT)
    assert result.returncode == 0, f"{command}: {result.stdout[-3000:]}"
