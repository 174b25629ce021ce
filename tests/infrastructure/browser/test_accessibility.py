"""What every page gives to those who do not see it, and never runs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from werkzeug.test import TestResponse

from app.accounts import User

Problems = Callable[[TestResponse], list[str]]


def test_pages_have_their_landmarks_and_labels_and_no_inline_code(
    client: Any, user: User, page_problems: Problems
) -> None:
    paths = ["/", "/register", "/login", "/profile/ada", "/nowhere"]
    assert {path: found for path in paths if (found := page_problems(client.get(path)))} == {}
    assert all('<nav aria-label="Main">' in client.get(path).text for path in paths)


def test_so_have_the_pages_of_somebody_who_is_logged_in(logged_in: Any, page_problems: Problems) -> None:
    paths = ["/", "/logout", "/profile/ada", "/picture"]
    assert {path: found for path in paths if (found := page_problems(logged_in.get(path)))} == {}


def test_so_has_a_refused_form_with_all_errors_tied_to_their_field(client: Any, page_problems: Problems) -> None:
    fields = {"register": 3, "login": 2}
    for path, number in fields.items():
        response = client.submit(f"/{path}", {"email": "x" * 255})
        assert response.text.count('aria-invalid="true"') == number
        assert page_problems(response) == []


def test_the_check_itself_finds_what_is_wrong(page_problems: Problems) -> None:
    page = """
    <html><title></title><header></header><main></main><h1>1</h1><h1>2</h1><h3>3</h3>
    <p id="a"></p><p id="a"></p><p id=""></p>
    <input name="q"><label for="r">R</label><input id="r" name="r" aria-invalid="None" aria-describedby="s">
    <label for="t">T</label><textarea id="t" name="t" aria-invalid="true" onclick="x()"></textarea>
    <style></style><script></script></html>
    """
    assert set(page_problems(cast(TestResponse, SimpleNamespace(text=page)))) == {
        "0 times <footer>",
        "2 times <h1>",
        "<h3> follows <h1>",
        "id 'a' is empty or there twice",
        "id '' is empty or there twice",
        "no language",
        "no label for q",
        "neither valid nor invalid: r",
        "aria-describedby points to s, which is not there",
        "no error tied to t",
        "inline code: <textarea onclick>",
        "inline code: <style >",
        "inline code: <script >",
    }
