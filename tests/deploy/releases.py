"""Artifacts of a generated project as it is, and with faults in it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from baking import PROJECT_VENV, TEMPLATE, run_in
from releasing import GIT

PYTHON = "3.11"
# A page that asks the database and takes a while without using the processor: requests are always under way, and
# deploys stay fast.
SLOW = '''"""A test's feature."""

import time

import svcs
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session


def register(app: Flask) -> None:
    @app.get("/slow")
    def slow() -> str:
        svcs.flask.get(Session).execute(text("SELECT count(*) FROM user_account"))
        time.sleep(0.05)
        return "done"
'''
# Paths, and which text is put in the place of which; nothing, for a new file.
Changes = Mapping[str, tuple[str, str]]
# A release that passes its own check, and is never ready once systemd has started it.
NOT_READY = """
    if "/my_service@" in Path("/proc/self/cgroup").read_text():
        name = Path(__file__).with_name("RELEASE").read_text()
        answer = {"status": "failed", "checks": {"database": "failed"}, "release": name}
        app.view_functions["ops.readyz"] = lambda: (answer, 503)
"""
# The first of the newest migrations, and the folder that it is in.
NEWEST = """
from alembic.script import ScriptDirectory
from database.migrations import alembic_config
scripts = ScriptDirectory.from_config(alembic_config())
script = scripts.get_revision(scripts.get_heads()[0])
print(script.revision, script.path)
"""
MIGRATION = '''"""A test's migration."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "%(follows)s"
branch_labels = None
depends_on = None


def upgrade() -> None:
    %(action)s


def downgrade() -> None:
    pass
'''
NEW_TABLE = 'op.create_table("of_a_test", sa.Column("id", sa.Integer()))'
VARIANTS: dict[str, Changes] = {
    "first": {},
    "second": {"app/static/style.css": (":root {", "/* second */\n:root {")},
    "migration": {"new migration": ("", NEW_TABLE)},
    "no module": {"app/pages.py": ("from flask", "import nothing_of_that_name\nfrom flask")},
    "import error": {"web.py": ("from app import", "import nothing_of_that_name\nfrom app import")},
    "migration error": {"new migration": ("", 'raise RuntimeError("no such luck")')},
    "not ready": {"web.py": ("    app = create_app()\n", f"    app = create_app()\n{NOT_READY}")},
    "no queue": {"queues.py": ("def main() -> None:\n", 'def main() -> None:\n    sys.exit("no queue today")\n\n')},
}


def bake(folder: Path, slug: str = "my_service") -> Path:
    """A project as its first commit, with the default answers but for its name, and with the page /slow."""
    answers = ["--no-input", "--accept-hooks", "no", "-o", str(folder), f"project_slug={slug}"]
    succeed(TEMPLATE, TEMPLATE / ".venv/bin/python", "-m", "cookiecutter", str(TEMPLATE), *answers)
    project = folder / slug
    (project / "app/slow").mkdir()
    (project / "app/slow/__init__.py").write_text(SLOW)
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"], ["tag", "base"]):
        succeed(project, "git", *words)
    return project


def pack(project: Path, variant: str, target: Path) -> Path:
    """What `make release` makes of the project with a variant's changes, as `target`/VARIANT.tar.gz."""
    succeed(project, "git", "checkout", "-q", "-f", "--detach", "base")
    for path, (old, new) in VARIANTS[variant].items():
        if path == "new migration":
            follows, newest = succeed(project, PROJECT_VENV / "bin/python", "-c", NEWEST).split()
            Path(newest).with_name("9999.py").write_text(MIGRATION % {"follows": follows, "action": new})
        else:
            text = (project / path).read_text()
            assert old in text, f"{path} has no {old!r}"
            (project / path).write_text(text.replace(old, new, 1))
    succeed(project, "git", "add", ".")
    succeed(project, "git", "commit", "-q", "--allow-empty", "-m", variant)
    succeed(project, "make", "release")
    target.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(project / "dist/release.tar.gz", target / f"{variant.replace(' ', '-')}.tar.gz"))


def succeed(folder: Path, *command: str | Path) -> str:
    """What a command prints that has to succeed."""
    result = run_in(folder, *command, environ=GIT)
    assert result.returncode == 0, f"{command}: {result.stdout[-3000:]}"
    return result.stdout
