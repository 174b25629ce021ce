"""Applies the pages of a project's docs/ as they are printed."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

# What the page leaves to the reader: other parts of a job, and a service that is called.
MORE = '''"""Old notes, and the chat itself."""

import json
import mailbox
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.error import HTTPError

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from app.accounts import User
from app.notes.chat import Chat
from app.notes.jobs import mail_note, remove_old_notes
from app.notes.models import Note
from app.services import transaction
from config import Settings
from database import utc_now


def test_only_old_notes_are_removed(app: Flask, user: User, session: Session) -> None:
    now = utc_now()
    for days in (364, 366):
        session.add(Note(author_id=user.id, text=f"{days} days", created=now - timedelta(days=days)))
    session.commit()
    with transaction(app):
        remove_old_notes(now.isoformat())
    assert [note.text for note in session.query(Note)] == ["364 days"]


def test_a_mail_has_the_note_and_a_link(app: Flask, user: User, session: Session, settings: Settings) -> None:
    session.add(note := Note(author_id=user.id, text="Cake"))
    session.commit()
    mail_note(note.id, "grace@example.org")
    [mail] = mailbox.Maildir(settings.app_dir.mails)
    assert mail["Subject"] == "A new note"
    assert mail.get_payload() == "Cake\\n\\nAll notes: http://127.0.0.1:8000/notes\\n"


def test_the_chat_gets_messages_and_its_errors_are_raised() -> None:
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append((self.headers["Authorization"], json.loads(body)))
            self.send_response(200 if len(calls) == 1 else 503)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        chat = Chat(f"http://127.0.0.1:{server.server_port}/messages", "sesame")
        chat.say("Cake")
        with pytest.raises(HTTPError):
            chat.say("More cake")
        server.shutdown()
    Chat("", "").say("nobody hears it")
    assert calls == [("Bearer sesame", {"text": "Cake"}), ("Bearer sesame", {"text": "More cake"})]
'''

BLOCK = re.compile(r"(?P<above>(?:[^\n]+\n)+)\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.\w+)`")


def apply_how_to(project: Path) -> None:
    """Build the feature of docs/how-to.md by hand, as the page says."""
    for block in BLOCK.finditer((project / "docs/how-to.md").read_text()):
        if block["language"] in {"python", "html", "yaml"}:
            write_block(project, block["above"], block["code"])
    (project / "tests/integration/notes/test_more.py").write_text(MORE)


def follow_recipe(project: Path, name: str, run: Callable[[Path, str], str]) -> None:
    """Do what a page of docs/recipes/ says, from top to bottom: its commands, and its files."""
    page = (project / f"docs/recipes/{name}.md").read_text()
    blocks = list(BLOCK.finditer(page))
    # A block without words above it would be left out.
    assert len(blocks) == len(re.findall(r"(?m)^```\w+$", page))
    for block in blocks:
        if block["language"] == "sh":
            for command in block["code"].splitlines():
                run(project, command)
        else:
            write_block(project, block["above"], block["code"])


def write_block(project: Path, above: str, code: str) -> None:
    """Write a block of a page into the file that is named first above it; after "In `file`", add it there."""
    name = FILE.findall(above)[0]
    path = project / name
    if f"In `{name}`" in above:
        code = with_code(path.read_text(), code) if path.suffix == ".py" else f"{path.read_text()}\n{code}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)


def with_code(module: str, addition: str) -> str:
    """A module with imports on top, functions and classes of the same name replaced, and new ones at the end."""
    for part in ast.parse(addition).body:
        code = source(addition, part)
        known = {getattr(it, "name", ""): it for it in ast.parse(module).body}
        if isinstance(part, ast.Import | ast.ImportFrom):
            docstring = source(module, ast.parse(module).body[0])
            module = module.replace(docstring, f"{docstring}\n{code}", 1)
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            if old := known.get(part.name):
                assert isinstance(old, ast.FunctionDef | ast.ClassDef)
                inside = [source(module, it) for it in old.body]
                code = code.replace(": ...", ":\n    ...").replace("    ...", "\n".join(inside))
                module = module.replace(source(module, old), code)
            else:
                module = f"{module}\n\n{code}\n"
    return module


def source(text: str, node: ast.stmt) -> str:
    """The lines of a statement, with its decorators."""
    first = min([node.lineno, *(it.lineno for it in getattr(node, "decorator_list", ()))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
