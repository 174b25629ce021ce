"""The commands of `main.py user`."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask

from app.accounts import User
from app.accounts.models import find_user
from config import ROOT, Settings
from database import utc_now
from tests.conftest import PASSWORD, SECRET

Invoke = Callable[..., Result]
NEW = "another horse battery"


@pytest.fixture
def invoke(app: Flask) -> Invoke:
    """Runs one of the commands, with a line on its standard input."""
    return lambda *arguments, line=PASSWORD: app.test_cli_runner().invoke(args=["user", *arguments], input=f"{line}\n")


@pytest.fixture
def refusal(invoke: Invoke) -> Callable[..., str]:
    """The one line of a command that refuses what it is told."""

    def refusal(*arguments: str, line: str = PASSWORD) -> str:
        result = invoke(*arguments, line=line)
        assert (result.exit_code, result.stdout) == (2, "")
        [message] = result.stderr.splitlines()
        return message

    return refusal


def test_each_change_of_an_account_leaves_an_audit_line(invoke: Invoke, settings: Settings) -> None:
    for arguments in (["create", "ada", "--admin"], ["password", "ada"], ["admin", "ada", "--remove"], ["list"]):
        assert invoke(*arguments).exit_code == 0
    lines = [json.loads(line) for line in settings.app_dir.audit_log.read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["account"], line["user"], line.get("admin")) for line in lines] == [
        ("user.create", "ada", f"uid {os.getuid()}", True),
        ("user.password", "ada", f"uid {os.getuid()}", None),
        ("user.admin", "ada", f"uid {os.getuid()}", False),
    ]


def find(app: Flask, name: str) -> User | None:
    with app.app_context():
        return find_user(name)


def test_an_account_that_was_made_can_log_in(invoke: Invoke, app: Flask, client: Any) -> None:
    result = invoke("create", "Ada", "--email", "ada@example.org")
    assert (result.exit_code, result.output) == (0, "ada: created\n")
    found = find(app, "ada")
    assert found
    assert (found.username, found.email, found.is_admin) == ("ada", "ada@example.org", False)
    assert client.log_in("ada").status_code == 302
    assert client.get("/ops").status_code == 404


def test_an_administrator_that_was_made_sees_the_ops_page(invoke: Invoke, app: Flask, client: Any) -> None:
    assert invoke("create", "ada", "--admin").output == "ada: created as an administrator\n"
    assert client.log_in("ada").status_code == 302
    assert client.get("/ops").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "line", "reason"),
    [
        (["a b"], PASSWORD, "username: Use 3 to 30 letters, digits, - or _."),
        (["ada"], "short", "password: Use at least 12 characters."),
        (["ada"], "", "password: Choose a password."),
        (["ada"], "x" * 129, "password: Use at most 128 characters."),
        (["ada", "--email", "nobody"], PASSWORD, "email: This does not look like an email address."),
        (["long-enough-name"], "long-enough-name", "password: Use something other than your name or address."),
        (["x"], "short", "username: Use 3 to 30 letters, digits, - or _.; password: Use at least 12 characters."),
    ],
)
def test_the_rules_are_those_of_registration(
    refusal: Callable[..., str], app: Flask, arguments: list[str], line: str, reason: str
) -> None:
    assert refusal("create", *arguments, line=line) == f"Error: {reason}"
    assert find(app, arguments[0]) is None


def test_a_name_that_is_taken_is_refused(refusal: Callable[..., str], user: User) -> None:
    assert refusal("create", "ADA", "--admin") == "Error: 'ada': this name is taken"


@pytest.mark.parametrize("arguments", [["create", "\udcff"], ["create", "ada", "--email", "a\udcff@b.org"]])
def test_bytes_that_are_not_utf8_are_refused(refusal: Callable[..., str], arguments: list[str]) -> None:
    assert refusal(*arguments) == "Error: name, address and password must be printable text in UTF-8"


def test_a_new_password_ends_all_sessions(invoke: Invoke, app: Flask, logged_in: Any) -> None:
    assert logged_in.get("/logout").status_code == 200
    result = invoke("password", "Ada", line=NEW)
    assert (result.exit_code, result.output) == (0, "ada: has a new password and is logged out everywhere\n")
    assert logged_in.get("/logout").status_code == 302
    assert logged_in.log_in("ada").status_code == 422
    assert logged_in.log_in("ada", NEW).status_code == 302


def test_a_password_that_registration_would_refuse_changes_nothing(refusal: Callable[..., str], logged_in: Any) -> None:
    assert refusal("password", "ada", line="short") == "Error: password: Use at least 12 characters."
    assert refusal("password", "ada", line="ada@example.org").endswith("Use something other than your name or address.")
    assert logged_in.get("/logout").status_code == 200


def test_an_account_becomes_an_administrator_and_none_again(invoke: Invoke, app: Flask, logged_in: Any) -> None:
    assert invoke("admin", "ada").output == "ada: is an administrator\n"
    assert logged_in.get("/ops").status_code == 200
    assert invoke("admin", "ada", "--remove").output == "ada: is no administrator\n"
    assert logged_in.get("/ops").status_code == 404


@pytest.mark.parametrize("command", ["password", "admin"])
def test_an_unknown_name_is_one_line(refusal: Callable[..., str], command: str) -> None:
    for name in ("bob", "\udcff"):
        assert refusal(command, name).endswith(": there is no such account; see: python main.py user list")


def test_the_list_is_for_people_and_for_programs(invoke: Invoke, app: Flask, other_user: User, user: User) -> None:
    invoke("admin", "ada")
    lines = [line.split() for line in invoke("list").output.splitlines()]
    assert [[*line[:2], line[-1]] for line in lines] == [
        ["NAME", "ADMIN", "EMAIL"],
        ["ada", "True", "ada@example.org"],
        ["grace", "False", "grace@example.org"],
    ]
    rows = json.loads(invoke("list", "--json").output)
    assert [(row["name"], row["admin"], row["email"]) for row in rows] == [
        ("ada", True, "ada@example.org"),
        ("grace", False, "grace@example.org"),
    ]
    assert abs(utc_now() - datetime.fromisoformat(rows[0]["created"])) < timedelta(minutes=1)


@pytest.mark.slow
def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(app: Flask, settings: Settings) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "main.py", "user", "create", "ada"],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "APP_DIR": str(settings.app_dir.path), "SECRET_KEY": SECRET},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        for prompt in (b"Password: ", b"Repeat for confirmation: "):
            while not shown.endswith(prompt):
                shown += os.read(ours, 1000)
            os.write(ours, f"{PASSWORD}\n".encode())
        while b"created" not in shown:
            shown += os.read(ours, 1000)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert PASSWORD.encode() not in shown
    assert find(app, "ada")


def test_no_option_takes_a_password(app: Flask) -> None:
    group = app.cli.commands["user"]
    assert isinstance(group, click.Group)
    assert "password" not in {param.name for command in group.commands.values() for param in command.params}
