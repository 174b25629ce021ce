"""Each kind of fault that a change to the template may bring into its output is found, with file and line."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import PROJECT_VENV, Bake, run_in
from output_check import find_faults, find_wrong_settings

# A folder such as people have. In one piece, this file would itself hold the path of a machine.
HOME = "/".join(("", "home", "ada"))
# Puts a fault into the template's project, and returns the file and line that a finding has to name.
Plant = Callable[[Path], str]
# What `make feature` writes from.
FORMS = "scaffold/[[cookiecutter.project]]/app/[[cookiecutter.name]]/forms.py"
PYTHON = '"""Shop."""\n'
REVISION = PYTHON + 'revision = "{}"\ndown_revision = {}\n'


def add(name: str, text: str | bytes, line: int | None = None, conditions: str = "") -> Plant:
    """A new file, of which the manifest knows."""

    def plant(project: Path) -> str:
        (project / name).parent.mkdir(exist_ok=True, parents=True)
        (project / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        append("manifest.txt", f"{name}{conditions}\n")(project)
        return f"{name}:{line}:" if line else f"{name}:"

    return plant


def append(name: str, text: str) -> Plant:
    """Text at a file's end; the fault is in its last line."""

    def plant(project: Path) -> str:
        path = project / name
        path.write_bytes(path.read_bytes() + text.encode())
        return f"{name}:{len(path.read_bytes().splitlines())}:"

    return plant


def replace(name: str, pattern: str, new: str) -> Plant:
    """The first match of a pattern replaced, in one line."""

    def plant(project: Path) -> str:
        text = (project / name).read_text()
        found = re.search(pattern, text)
        assert found, f"{name}: no {pattern}"
        (project / name).write_text(text[: found.start()] + found.expand(new) + text[found.end() :])
        return f"{name}:{text.count(chr(10), 0, found.start()) + 1}:"

    return plant


def both(first: Plant, second: Plant) -> Plant:
    """Two changes that make one fault, at the second."""

    def plant(project: Path) -> str:
        first(project)
        return second(project)

    return plant


def within(name: str, change: Plant) -> Plant:
    """A change whose finding names this file, with a line that only the output knows."""
    return both(change, lambda _: f"{name}:")


def unlisted(name: str, shown: str) -> Plant:
    """A file of which the manifest does not know."""

    def plant(project: Path) -> str:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x\n")
        return shown

    return plant


def remove(name: str) -> Plant:
    """A file that is gone."""

    def plant(project: Path) -> str:
        (project / name).unlink()
        return f"{name}:"

    return plant


def link(name: str, target: str) -> Plant:
    """A symlink."""

    def plant(project: Path) -> str:
        (project / name).symlink_to(target)
        return f"{name}:"

    return plant


# What is found before anything is written.
BEFORE: dict[str, tuple[Plant, str]] = {
    "symlink": (link("app/hosts", "/etc/hosts"), "is a symlink"),
    "dangling symlink": (link("app/nothing", "nowhere"), "is a symlink"),
    "symlink to a folder": (link("app/root", "/"), "is a symlink"),
    "condition on no question": (
        within("manifest.txt", add("a.md", "x\n", conditions=" exmaple=blog")),
        "exmaple=blog is no answer",
    ),
    "condition on no answer": (
        within("manifest.txt", add("b.md", "x\n", conditions=" example=blgo")),
        "example=blgo is no answer",
    ),
    "condition without a value": (
        within("manifest.txt", add("c.md", "x\n", conditions=" example")),
        "example is no answer",
    ),
    "in the manifest twice": (append("manifest.txt", "web.py\n"), "web.py is there twice"),
    "condition forgotten": (
        both(
            add("app/tags/__init__.py", PYTHON, conditions=" deploy=none"),
            within("manifest.txt", add("app/tags/views.py", PYTHON)),
        ),
        "app/tags/views.py lacks deploy=none",
    ),
}
# What is found in one look at all files.
FILES: dict[str, tuple[Plant, str]] = {
    "template tag": (append("queues.py", "# {{ cookiecutter.slug }}\n"), "a template tag is left over"),
    "misspelt template tag": (append("Procfile", "# {{ cookicutter.slug }}\n"), "a template tag is left over"),
    "tag without its prefix": (append(".gitignore", "# {{ project_slug }}\n"), "a template tag is left over"),
    "tag in a page": (append("app/templates/index.html", "{% if cookiecutter.ci %}\n"), "a template tag is left over"),
    "rendered file that does not parse": (append("pyproject.toml", "a = = 1\n"), "does not parse"),
    "conflict in what `make feature` writes": (append(FORMS, ">>>>>>> new\n"), "a conflict marker"),
    "byte-code": (unlisted("app/x.pyc", "app/x.pyc:"), "not in the manifest"),
    "cache folder": (unlisted(".ruff_cache/0", ".ruff_cache/:"), "not in the manifest"),
    "unknown file": (unlisted("notes.txt", "notes.txt:"), "not in the manifest"),
    "missing file": (remove("docs/queue.md"), "missing"),
    "empty file": (add("docs/empty.md", ""), "empty"),
    "large file": (add("docs/large.md", "x\n" * 600_000), "1200000 bytes"),
    "not UTF-8": (add("docs/latin.md", b"# x\n\xfcber\n", 2), "not UTF-8"),
    "image of no known suffix": (add("docs/logo.jpg", b"\xff\xd8\xff\xe0", 1), "if it is binary"),
    "byte order mark": (add("docs/bom.md", "\ufeff# x\n", 1), "a byte order mark"),
    "byte order mark in Python": (add("docs/bom.py", "\ufeff" + PYTHON, 1), "a byte order mark"),
    "carriage return": (add("docs/dos.md", "# x\n\r\n", 2), "a carriage return"),
    "NUL": (add("docs/nul.md", "# x\n\0\n", 2), "a NUL"),
    "conflict, ours": (add("docs/ours.md", "a\n<<<<<<< HEAD\nb\n", 2), "a conflict marker"),
    "conflict, theirs": (add("docs/theirs.md", "a\n>>>>>>> new\n", 2), "a conflict marker"),
    "last line without an end": (add("docs/end.md", "a\nb", 2), "the last line has no end"),
    "names that differ in capitals": (both(add("docs/A.md", "a\n"), add("docs/a.md", "a\n")), "differs in capitals"),
    "module in capitals": (add("app/Shop.py", PYTHON), "expected a name in lower case"),
    "feature that is no package": (add("app/shop/views.py", PYTHON), "app/shop/__init__.py is missing"),
    "test module without a test": (add("tests/unit/test_none.py", "def tets() -> None: ...\n", 1), "holds no test"),
    "breakpoint": (append("gunicorn.conf.py", "breakpoint()\n"), "a breakpoint is left over"),
    "secret": (append(".env.example", "SECRET_KEY=Zk3vQ9x7Lw2bT8mR4yN6cF1hJ5dS0aPe\n"), "looks like a secret"),
    "debug in production": (add("config/production/app.yaml", "debug: true\n", 1), "debugging is on"),
    "private key": (add("docs/key.md", "-----BEGIN RSA PRIVATE KEY-----\n", 1), "looks like a secret"),
    "key of AWS": (add("docs/aws.md", "# x\nAKIAABCDEFGHIJKLMNOP\n", 2), "looks like a secret"),
    "key of age": (add("docs/age.md", "# x\nAGE-SECRET-KEY-1QQQ\n", 2), "looks like a secret"),
    "password in a URL": (add("docs/url.md", "# x\nredis://ada:hunter2@cache\n", 2), "a password in a URL"),
    "path of a machine": (add("docs/home.md", f"# x\n{HOME}/x\n", 2), "a path of one machine"),
    "Makefile without tab": (append("Makefile", "x:\n    echo\n"), "expected a tab"),
    "extends no template": (add("app/templates/parent.html", '\n{% extends "bsae.html" %}\n', 2), "no template bsae"),
    "includes no template": (add("app/templates/in.html", '\n{% include "nav.html" %}\n', 2), "no template nav.html"),
    "imports no macro": (
        add("app/templates/macro.html", '\n{% from "fields.html" import shop %}\n', 2),
        "no shop in fields.html",
    ),
    "link to no endpoint": (add("app/templates/link.html", "\n{{ url_for('accounts.shop') }}\n", 2), "no endpoint"),
    "link to no static file": (
        add("app/templates/static.html", "\n{{ url_for('static', filename='no.js') }}\n", 2),
        "no file app/static/no.js",
    ),
    "view of no template": (add("app/bare.py", PYTHON + 'render_template("no.html")\n', 2), "no template no.html"),
    "view that leads to no endpoint": (add("app/lost.py", PYTHON + 'url_for("shop.x")\n', 2), "no endpoint shop.x"),
    "braces of a stylesheet": (append("app/static/style.css", ".x {\n"), "a brace is left open"),
    "revision twice": (
        both(
            add("database/versions/a/1_a.py", REVISION.format("1a", None)),
            add("database/versions/a/2_a.py", REVISION.format("1a", None), 2),
        ),
        "1a is the revision of database/versions/a/1_a.py:2",
    ),
    "unknown earlier revision": (
        add("database/versions/b/1_b.py", REVISION.format("1b", '"0b"'), 3),
        "down_revision: no revision 0b",
    ),
    "unknown dependency": (
        add("database/versions/c/1_c.py", REVISION.format("1c", None) + 'depends_on = ("0c",)\n', 4),
        "depends_on: no revision 0c",
    ),
    "two heads in a branch": (
        both(
            add("database/versions/d/1_d.py", REVISION.format("1d", None)),
            add("database/versions/d/2_d.py", REVISION.format("2d", None), 2),
        ),
        "database/versions/d has two heads, 1d and 2d",
    ),
    "model without a migration": (
        add("app/shelf.py", PYTHON + 'class Shelf:\n    __tablename__ = "shelf"\n', 3),
        "no migration makes shelf",
    ),
    "link to nothing": (within("README.md", append("README.md", "[x](docs/no.md)\n")), "a link to nothing: docs/no.md"),
    "link to nothing in docs": (append("docs/storage.md", "[x](no.md#x)\n"), "a link to nothing: no.md"),
    "command that make lacks": (append("docs/testing.md", "make tset\n"), "the Makefile has no target tset"),
    "command of no script": (append("docs/backup.md", "python mian.py check\n"), "no file mian.py"),
    "process of no script": (append("Procfile", "x: exec python mail.py\n"), "no file mail.py"),
    "pins that differ": (
        replace("requirements.txt", r"flask==[\d.]+", "flask==0.1"),
        "flask: not as in requirements-dev",
    ),
    "hashes that differ": (
        both(
            replace("requirements-dev.txt", r"(click==.*\n.*sha256:)\w{4}", r"\g<1>0000"),
            replace("requirements.txt", "click==", "click=="),
        ),
        "click: not as in requirements-dev",
    ),
    "pin without hash": (append("requirements.txt", "shop==1.0\n"), "expected name==version with hashes"),
    "hash that is none": (append("requirements-dev.txt", "shop==1.0 \\\n    --hash=sha256:12\n"), "expected --hash"),
    "dependency without a pin": (
        within(
            "pyproject.toml", replace("pyproject.toml", r"dependencies = \[\n", 'dependencies = [\n    "shelf>=1",\n')
        ),
        "shelf: not in requirements.txt",
    ),
    "placeholder in a unit": (append("deploy/systemd/queue.service", "User=<usre>\n"), "unknown placeholder <usre>"),
    "placeholder in nginx": (append("deploy/nginx/maps.conf", "# <hots>\n"), "unknown placeholder <hots>"),
    "braces of a script": (append("app/static/progress.js", "function x() {\n"), "a brace is left open"),
    "unknown instruction of the image": (add("docs/Containerfile", "FROM x\ncopy . /app\n", 2), "no instruction"),
    "braces of nginx": (append("deploy/nginx/http.conf", "}\n"), "a brace is left open, or closed twice"),
    "line of a unit": (append("deploy/systemd/web.service", "User shop\n"), "neither a section nor a setting"),
    "syntax of a shell script": (
        within("deploy/command", append("deploy/command", "if true; then\n")),
        "the shell cannot read it",
    ),
    "export-ignore": (append(".gitattributes", "/tests export-ignore\n"), "git obeys export-ignore"),
}
# What `find_faults` sees in data and pages.
OUTPUT: dict[str, tuple[Plant, str]] = {
    "syntax of TOML": (add("docs/broken.toml", "a = 1\n[broken\n", 2), "does not parse"),
    "key twice in TOML": (add("docs/twice.toml", "a = 1\na = 2\n", 2), "does not parse"),
    "syntax of JSON": (add("docs/broken.json", '{\n"a": 1,\n}\n', 3), "does not parse"),
    "key twice in JSON": (add("docs/twice.json", '{"b": {"a": 1, "a": 2}}\n', 1), "does not parse: a twice"),
    "syntax of YAML": (add("docs/broken.yaml", "a: b\na: b: c\n", 2), "does not parse"),
    "key twice in YAML": (add("docs/twice.yml", "b:\n  a: 1\n  a: 2\n", 3), "does not parse: a twice"),
    "syntax of a workflow": (append(".github/workflows/ci.yml", "\tx: 1\n"), "does not parse"),
    "syntax of INI": (add("docs/broken.ini", "[broken]\nno value\n", 2), "does not parse"),
    "key twice in INI": (add("docs/twice.ini", "[twice]\na = 1\na = 2\n", 3), "does not parse"),
    "template that is not closed": (
        add("app/templates/open.html", "{% if x %}\n{% for y in z %}\n{% endif %}\n", 3),
        "does not compile",
    ),
    "expression that does not parse": (add("app/templates/x.html", "\n{{ x + }}\n", 2), "does not compile"),
    "unknown template tag": (add("app/templates/esle.html", "\n{% esle %}\n", 2), "does not compile"),
    "unknown filter": (add("app/templates/filter.html", "\n{{ x | euros }}\n", 2), "No filter named 'euros'"),
    "block that is there twice": (
        add("app/templates/block.html", "{% block a %}{% endblock %}\n{% block a %}{% endblock %}\n", 2),
        "block 'a' defined twice",
    ),
    "unknown test": (add("app/templates/test.html", "\n{% if x is dear %}{% endif %}\n", 2), "No test named 'dear'"),
    "tag that is not closed": (add("app/templates/div.html", "<p>\n<b>{{ x }}</p>\n", 2), "<b> is not closed"),
    "tag that was not opened": (
        add("app/templates/end.html", "{% if x %}\n</b>\n{% endif %}\n", 2),
        "</b> closes nothing",
    ),
}
# What the service itself says: of its log, and then, as that needs settings that are right, of its settings.
LOG: dict[str, tuple[Plant, str]] = {
    "handler of a logger": (
        replace("config/logging.json", r'\["audit"\]', '["audits"]'),
        "Unable to add handler 'audits'",
    ),
}
SETTINGS: dict[str, tuple[Plant, str]] = {
    "unknown setting": (append("config/queue.yaml", "colour: red\n"), "queue.colour: unknown key"),
    "type of a setting": (
        replace("config/queue.yaml", "threads: 8", "threads: many"),
        "queue.threads: expected int, found 'many'",
    ),
    "type of a setting in INI": (
        replace("config/web.ini", "workers = 2", "workers = two"),
        "web.workers: expected int, found 'two'",
    ),
    "number out of range": (
        replace("config/web.ini", "port = .*", "port = 70000"),
        "web.port: expected int <= 65535, found '70000'",
    ),
    "missing setting": (
        replace("config/database.yaml", "url:", "address:"),
        "database.url: is missing",
    ),
    "nested unknown setting": (
        replace("config/security.yaml", "time_cost", "tiem_cost"),
        "security.argon2.tiem_cost: unknown",
    ),
    "nested type": (
        replace("config/security.yaml", "memory_cost: .*", "memory_cost: x"),
        "argon2.memory_cost: expected int, found 'x'",
    ),
    "text of another pattern": (
        replace("config/security.yaml", r"(?<=rate_limits:\n)(  \w+:) .*", r"\1 often"),
        "found 'often'",
    ),
    "section of nothing": (add("config/testing/shop.yaml", "a: b\n"), "shop: unknown section"),
    "setting of an environment": (append("config/production/security.yaml", "cookie: 1\n"), "security.cookie: unknown"),
}
# What `make lint` of the project says.
LINT: dict[str, tuple[Plant, str]] = {
    "syntax of Python": (append("gunicorn.conf.py", "\ndef (:\n"), "invalid-syntax"),
    "return outside a function": (append("web.py", "\nreturn 1\n"), "`return` statement outside of a function"),
    "import of no module": (append("scheduler.py", "import app.shops\n"), 'module named "app.shops"'),
    "import from no module": (append("main.py", "from app.shops import x\n"), 'module named "app.shops"'),
    "import of no name": (append("main.py", "from storage import Cupboard\n"), 'no attribute "Cupboard"'),
    "relative import of no module": (append("app/errors.py", "from .shops import x\n"), 'module named "app.shops"'),
    "relative import of no name": (append("app/files.py", "from .forms import shops\n"), 'no attribute "shops"'),
}


def generate(template: Path, *answers: str) -> CompletedProcess[str]:
    """Run Cookiecutter beside the template, with answers that keep the files that have faults here."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-o", "out"]
    command += ["deploy=systemd", "ci=github"]
    return run_in(template.parent, *command, *answers)


def missed(expected: dict[str, tuple[str, str]], lines: list[str]) -> dict[str, tuple[str, str]]:
    """The faults of which no line tells."""
    return {
        kind: (where, finding)
        for kind, (where, finding) in expected.items()
        if not any(where in line and finding in line for line in lines)
    }


def plant_all(project: Path, faults: dict[str, tuple[Plant, str]]) -> dict[str, tuple[str, str]]:
    """What has to be told of each kind of fault: where it is, and what it is."""
    return {kind: (plant(project), finding) for kind, (plant, finding) in faults.items()}


@pytest.mark.parametrize("faults", [BEFORE, FILES], ids=["before", "files"])
def test_the_hooks_find_planted_faults(template_copy: Path, faults: dict[str, tuple[Plant, str]]) -> None:
    expected = plant_all(template_copy / "{{cookiecutter.project_slug}}", faults)

    result = generate(template_copy)

    assert result.returncode == 1
    assert not missed(expected, result.stdout.splitlines()), result.stdout
    assert "Traceback" not in result.stdout.split("Stopping generation")[0]
    assert list((template_copy.parent / "out").iterdir()) == []


def test_what_the_hooks_leave_to_the_tests_is_found_by_them(bake: Bake, tmp_path: Path) -> None:
    project = bake(deploy="systemd", ci="github")
    (project / "manifest.txt").touch()

    expected = plant_all(project, OUTPUT)
    assert not missed(expected, find_faults(project))

    for faults in (LOG, SETTINGS):
        expected = {kind: (where.split(":")[0], what) for kind, (where, what) in plant_all(project, faults).items()}
        lines = find_wrong_settings(project, tmp_path)
        assert not missed(expected, lines), lines

    expected = plant_all(project, LINT)
    assert not missed(expected, lint(project)), lint(project)


def lint(project: Path) -> list[str]:
    """What ruff and mypy say of the project; without its packages, which are no matter here, mypy is fast."""
    ruff = ["ruff", "check", "--no-cache", "--output-format=concise"]
    mypy = ["mypy", "--config-file=", "--no-site-packages", "--explicit-package-bases"]
    mypy += ["main.py", "scheduler.py", "app/errors.py", "app/files.py"]
    return [
        line
        for name, *words in (ruff, mypy)
        for line in run_in(
            project, PROJECT_VENV / "bin" / name, *words, environ={"MYPY_CACHE_DIR": os.devnull}
        ).stdout.splitlines()
    ]


def test_pictures_and_an_owner_s_texts_are_no_faults(template_copy: Path) -> None:
    project = template_copy / "{{cookiecutter.project_slug}}"
    add("app/static/logo.png", b"\x89PNG\r\n\x1a\n\0\xff")(project)
    answers = [f"description=<<<<<<< {HOME} redis://ada:hunter2@cache breakpoint() [x](no.md)"]

    result = generate(template_copy, *answers)

    assert result.returncode == 0, result.stdout
