"""The commands of `main.py user`."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask

from app.accounts import User
from app.accounts.models import find_user
from config import Settings
from database import utc_now
from tests.conftest import PASSWORD

Invoke = Callable[..., Result]
Refusal = Callable[..., str]
NEW = "another horse battery"
COMMON = "This is a common password, or made of names. Use something longer or less usual."


@pytest.fixture
def invoke(app: Flask) -> Invoke:
    """Runs one of the commands, with a line on its standard input."""
    return lambda *arguments, line=PASSWORD: app.test_cli_runner().invoke(args=["user", *arguments], input=f"{line}\n")


@pytest.fixture
def refusal(invoke: Invoke) -> Refusal:
    """The one line of a command that refuses what it is told."""

    def refusal(*arguments: str, line: str = PASSWORD) -> str:
        result = invoke(*arguments, line=line)
        assert (result.exit_code, result.stdout) == (1, "")
        [message] = result.stderr.splitlines()
        return message.removeprefix("Error: ")

    return refusal


def find(app: Flask, name: str) -> User | None:
    with app.app_context():
        return find_user(name)


def test_each_change_of_an_account_leaves_an_audit_line_with_the_person(
    invoke: Invoke, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "grace")
    for arguments in (["create", "ada", "--admin"], ["password", "ada"], ["admin", "ada", "--remove"], ["list"]):
        assert invoke(*arguments).exit_code == 0
    lines = [json.loads(line) for line in (settings.app_dir.path / "logs/audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["account"], line["user"], line.get("admin")) for line in lines] == [
        ("user.create", "ada", "grace", True),
        ("user.password", "ada", "grace", None),
        ("user.admin", "ada", "grace", False),
    ]


@pytest.mark.parametrize(("options", "outcome"), [([], "created"), (["--admin"], "created as an administrator")])
def test_an_account_that_was_created_can_log_in(
    invoke: Invoke, app: Flask, client: Any, options: list[str], outcome: str
) -> None:
    result = invoke("create", "Ada", "--email", "ada@example.org", *options)
    assert (result.exit_code, result.output) == (0, f"ada: {outcome}\n")
    found = find(app, "ada")
    assert found
    assert (found.username, found.email, found.is_admin) == ("ada", "ada@example.org", bool(options))
    assert client.log_in("ada").status_code == 302


@pytest.mark.parametrize(
    ("arguments", "line", "reason"),
    [
        (["a b"], PASSWORD, "username: Use 3 to 30 letters, digits, - or _."),
        (["ada"], "", "password: Choose a password."),
        (["ada", "--email", "nobody"], PASSWORD, "email: This does not look like an email address."),
        (["long-enough-name"], "long-enough-name", f"password: {COMMON}"),
        (["x"], "short", "username: Use 3 to 30 letters, digits, - or _.; password: Use at least 12 characters."),
        (["ad\udcff"], PASSWORD, "name, address and password must be printable text in UTF-8"),
        (["ada", "--email", "a\udcff@b.org"], PASSWORD, "name, address and password must be printable text in UTF-8"),
        (["GRACE", "--admin"], PASSWORD, "'grace': this name is taken"),
    ],
)
def test_the_rules_are_those_of_registration(
    refusal: Refusal, app: Flask, other_user: User, arguments: list[str], line: str, reason: str
) -> None:
    assert refusal("create", *arguments, line=line) == reason
    assert find(app, "ada") is None


def test_a_new_password_ends_all_sessions(invoke: Invoke, refusal: Refusal, logged_in: Any) -> None:
    assert refusal("password", "ada", line="short") == "password: Use at least 12 characters."
    assert refusal("password", "ada", line="ada@example.org") == f"password: {COMMON}"
    assert logged_in.get("/logout").status_code == 200
    result = invoke("password", "Ada", line=NEW)
    assert (result.exit_code, result.output) == (0, "ada: has a new password and is logged out everywhere\n")
    assert logged_in.get("/logout").status_code == 302
    assert logged_in.log_in("ada").status_code == 422
    assert logged_in.log_in("ada", NEW).status_code == 302


def test_an_account_becomes_an_administrators_and_an_ordinary_one_again(invoke: Invoke, app: Flask, user: User) -> None:
    for options, outcome in (([], "an"), (["--remove"], "no")):
        assert invoke("admin", "ada", *options).output == f"ada: is {outcome} administrator\n"
        found = find(app, "ada")
        assert found
        assert found.is_admin is (outcome == "an")


@pytest.mark.parametrize("command", ["password", "admin"])
def test_an_unknown_name_is_one_line(refusal: Refusal, command: str) -> None:
    for name in ("bob", "\udcff"):
        assert refusal(command, name).endswith(": there is no such account; see: python main.py user list")


def test_the_list_is_for_people_and_for_programs(invoke: Invoke, other_user: User, user: User) -> None:
    invoke("admin", "ada")
    lines = [line.split() for line in invoke("list").output.splitlines()]
    assert [(line[0], line[-1]) for line in lines[1:]] == [("ada", user.email), ("grace", other_user.email)]
    rows = json.loads(invoke("list", "--json").output)
    assert [(row["name"], row["admin"], row["email"]) for row in rows] == [
        ("ada", True, user.email),
        ("grace", False, other_user.email),
    ]
    assert abs(utc_now() - datetime.fromisoformat(rows[0]["created"])) < timedelta(minutes=1)


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(
    invoke: Invoke, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.accounts.commands.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    result = invoke("create", "ada", line=f"{PASSWORD}\n{PASSWORD}")
    assert (result.exit_code, result.stdout) == (0, "ada: created\n")
    assert result.stderr.split("\n") == ["Password: ", "Repeat for confirmation: ", ""]
    assert find(app, "ada")


def test_no_option_takes_a_password(app: Flask) -> None:
    group = app.cli.commands["user"]
    assert isinstance(group, click.Group)
    assert "password" not in {param.name for command in group.commands.values() for param in command.params}
