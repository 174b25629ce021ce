"""`posts import`: a CSV file becomes posts without a queue."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from app.accounts import User
from app.blog import Post, forms
from app.services import transaction
from config import Settings

Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask, user: User, tmp_path: Path) -> Run:
    """Runs the command for ada on a file that holds the given bytes."""
    file = tmp_path / "posts.csv"

    def run(data: bytes, *, author: str = "ada") -> Result:
        file.write_bytes(data)
        return app.test_cli_runner().invoke(args=["posts", "import", str(file), "--author", author])

    return run


def titles(app: Flask) -> list[str]:
    with transaction(app) as session:
        return list(session.scalars(select(Post.title).order_by(Post.id)))


def test_the_rows_of_a_file_become_posts_of_the_author(app: Flask, client: Any, run: Run) -> None:
    result = run(b"body,title\ntext,One\ntext,Two\n", author="Ada")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "posts imported: 2\n", "")
    assert titles(app) == ["One", "Two"]
    assert "One" in client.get("/profile/ada").text


def test_if_any_row_is_wrong_each_error_is_a_line_and_nothing_is_imported(app: Flask, run: Run) -> None:
    result = run(b"title,body\nOne,text\n,text\nTwo,\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "row 3: title: Give a title.",
        "row 4: body: Write something.",
        "Error: nothing is imported, errors: 2",
    ]
    assert titles(app) == []


def test_a_file_that_is_none_of_posts_is_one_line(app: Flask, run: Run) -> None:
    result = run(b"title,body\nOne,\xff\n")
    assert result.exit_code == 1
    assert result.stderr.endswith("posts.csv: Line 2 is not UTF-8 text. Save the file as CSV in UTF-8.\n")
    assert len(result.stderr.splitlines()) == 1
    assert titles(app) == []


def test_an_unknown_author_or_an_unreadable_file_is_one_line(app: Flask, run: Run, tmp_path: Path) -> None:
    result = run(b"title,body\nOne,text\n", author="nobody")
    assert (result.exit_code, result.stderr) == (2, "Error: there is no user called nobody\n")
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        result = app.test_cli_runner().invoke(args=["posts", "import", str(path), "--author", "ada"])
        assert (result.exit_code, result.stderr) == (2, f"Error: {path}: {reason}\n")
    assert titles(app) == []


def test_everybody_can_write_while_the_file_is_checked(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = forms.PostForm.validate

    def write(form: forms.PostForm) -> Any:
        with sqlite3.connect(settings.app_dir.database, timeout=0) as somebody:
            somebody.execute("UPDATE user_account SET email = 'new@example.org'")
        somebody.close()
        return validate(form)

    monkeypatch.setattr(forms.PostForm, "validate", write)
    assert run(b"title,body\nOne,text\n").exit_code == 0


def test_a_terminal_shows_a_bar(app: Flask, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Mock()
    monkeypatch.setattr("rich.progress.Progress.update", bar)
    monkeypatch.setattr(forms, "STEP", 1)
    assert run(b"title,body\nOne,text\nTwo,text\n").exit_code == 0
    assert [(call.kwargs["completed"], call.kwargs["total"]) for call in bar.mock_calls] == [(1, 2), (2, 2), (2, 2)]
