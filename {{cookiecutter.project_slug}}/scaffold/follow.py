"""Compares this project with its template, or merges a newer version: `make compare`, `make update`.

An update is prepared in a worktree. Its first commit has the template's files as `.cruft.json` recorded them, and cruft
makes the second: so git can merge what is new, by three ways, whatever was edited here.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER, TEMPLATE, WORKTREE = ".update", ".update/template", ".update/project"
CRUFT = str(Path(sys.executable).with_name("cruft"))
# Commits that nobody sees need no name and no hook.
HIDDEN = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgsign=false", "-c", "user.name=-", "-c", "user.email=-")
RECORD = ":(exclude).cruft.json"


def run(*command: str, given: str | None = None, fails: str | None = None) -> str:
    """What a command prints. If it fails: the end, with its last line; or `fails`, where that is given."""
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode and fails is None:
        sys.exit((result.stderr or result.stdout).strip().rpartition("\n")[2])
    return result.stdout if not result.returncode else fails or ""


def git(*words: str, given: str | None = None, fails: str | None = None) -> str:
    return run("git", *HIDDEN, *words, given=given, fails=fails).rstrip("\n")


def in_template(*words: str, fails: str | None = None) -> str:
    return git("--git-dir", TEMPLATE, *words, fails=fails)


def prepare(wanted: str) -> tuple[str, str]:
    """Two commits: this project with the template's files as they were recorded, and as they are in another version."""
    prefix = git("rev-parse", "--show-prefix")
    record = json.loads(git("show", "HEAD:./.cruft.json", fails="{}"))
    if not (record.get("template") and record.get("commit")):
        expected = "expected the template's address and commit; write them there, or see: cruft link --help"
        sys.exit(f".cruft.json in the last commit: {expected}")
    remove()
    try:
        git("clone", "-q", "--bare", "--", record["template"], TEMPLATE)
        old, new = find(record["commit"]), find(wanted)
        git("worktree", "add", "-q", "--detach", WORKTREE)
        if patch := run(CRUFT, "diff", "-p", f"{WORKTREE}/{prefix}"):
            options = ("--index", "--whitespace=nowarn", f"--directory={prefix}")
            git("-C", WORKTREE, "apply", *options, given=patch)
        git("-C", WORKTREE, "commit", "-qan", "--allow-empty", "-m", "as recorded")
        run(CRUFT, "update", "-y", "-p", f"{WORKTREE}/{prefix}", "--template-path", TEMPLATE, "--checkout", new)
        git("-C", WORKTREE, "commit", "-qan", "--allow-empty", "-m", "update")
        tell(old, new)
        before, after = git("-C", WORKTREE, "rev-parse", "HEAD^", "HEAD").split()
        return before, after
    finally:
        remove()


def remove() -> None:
    git("worktree", "remove", "--force", WORKTREE, fails="")
    shutil.rmtree(FOLDER, ignore_errors=True)


def find(version: str) -> str:
    if commit := in_template("rev-parse", "-q", "--verify", f"{version}^{{commit}}", fails=""):
        return commit
    known = " ".join(in_template("tag").split()) or "no tag"
    return sys.exit(f"{version}: the template has no such version; it has {known}")


def tell(old: str, new: str) -> None:
    """Print both versions, and what the changelog has come to ask of a project."""
    names = [re.findall('(?m)^version = "(.*)"', in_template("show", f"{it}:pyproject.toml")) for it in (old, new)]
    say("template: " + " -> ".join(f"{name[0]} ({commit[:7]})" for name, commit in zip(names, (old, new), strict=True)))
    known = set(in_template("show", f"{old}:CHANGELOG.md", fails="").splitlines())
    asks = False
    for line in in_template("show", f"{new}:CHANGELOG.md", fails="").splitlines():
        asks = "must do" in line if line.startswith("##") else asks
        if line not in known and (asks or line.startswith("## ")):
            say(line)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def compare(wanted: str) -> bool:
    """Print what differs, file by file; whether anything does."""
    old, new = prepare(wanted)
    ours, theirs = (git("diff", "--relative", "--stat", *them, "--", ".", RECORD) for them in ([old], [old, new]))
    nothing = " nothing"
    say(f"changed here (every line: cruft diff):\n{ours or nothing}")
    say(f"new in the template (make update):\n{theirs or nothing}")
    return bool(ours or theirs)


def update(wanted: str) -> None:
    """Merge what is new into the files of the last commit."""
    if changed := git("status", "--porcelain", "."):
        sys.exit(f"{changed}\ncommit this, or stash it, before an update")
    if git("rev-parse", "-q", "--verify", "MERGE_HEAD", fails=""):
        sys.exit("a merge has begun here: commit it before an update")
    old, new = prepare(wanted)
    for path in git("diff", "--relative", "--name-only", "--diff-filter=A", old, new).splitlines():
        if Path(path).exists():
            sys.exit(f"{path}: new in the template, and git does not know yours; move it away before an update")
    failed = "the update cannot be merged; see: git status"
    merged = git("cherry-pick", "-n", new, fails=failed)
    say(git("diff", "--relative", "--stat", "HEAD", "--", ".", RECORD))
    conflicts = set(git("diff", "--relative", "--name-only", "--diff-filter=U").splitlines())
    conflicts |= set(git("diff", "--relative", "--name-only", "-G^<{7} ", "HEAD").splitlines())
    if conflicts:
        say("conflicts: look for <<<<<<<, or for a file that one side has deleted:")
        say("\n".join(sorted(conflicts)))
        say("For pins: git checkout --theirs requirements*.txt, settle pyproject.toml, and then make add")
        sys.exit("When all are settled: git add -A, make setup, make ci, and commit; to give up: git reset --hard")
    if merged == failed:
        sys.exit(failed)


if __name__ == "__main__":
    try:
        target, version = (*sys.argv[1:], "HEAD")[:2]
        if target == "compare":
            sys.exit(compare(version))
        update(version)
    except KeyboardInterrupt:
        sys.exit(130)
