"""What docs/how-to.md of the project prints is true: it is applied as printed, and passes the gate, renamed as well."""

import re

from baking import Bake, commands_of, run_in
from demo import PAGES
from how_to import apply_how_to
from test_project import run, serve

# What the page leaves to the reader: other parts of a job, and a service that is called.
MORE = '''"""Old notes, and the chat itself."""

import json
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.error import HTTPError

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from app.accounts import User
from app.notes.chat import Chat
from app.notes.jobs import remove_old_notes
from app.notes.models import Note
from app.services import transaction
from database import utc_now


def test_only_old_notes_are_removed(app: Flask, user: User, session: Session) -> None:
    now = utc_now()
    for days in (364, 366):
        session.add(Note(author_id=user.id, text=f"{days} days", created=now - timedelta(days=days)))
    session.commit()
    with transaction(app):
        remove_old_notes(now.isoformat())
    assert [note.text for note in session.query(Note)] == ["364 days"]


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


def test_the_how_tos_make_a_feature_that_passes_the_gate_in_a_renamed_project(bake: Bake) -> None:
    project = bake(example="none")
    page = (project / "docs/how-to.md").read_text()
    apply_how_to(project)
    (project / "tests/integration/notes/test_more.py").write_text(MORE)
    run(project, "make setup")
    run(project, "make format")
    commands = re.compile(r"perl |\.venv/bin/python main\.py (db|schedule) (?!.*bookmarks)")
    printed = {
        command: run(project, command) for command in commands_of(project / "docs/how-to.md") if commands.match(command)
    }

    assert len(list((project / "database/versions/notes").glob("*.py"))) == 1
    for schedule in ("remove_old_notes", "write_list"):
        assert schedule in printed[".venv/bin/python main.py schedule list"]
    assert "sent" in printed[".venv/bin/python main.py schedule history remove_old_notes"]
    refused = run_in(project, ".venv/bin/python", "main.py", "config", "show", environ={"APP_NOTES__KEEP_DAYS": "soon"})
    assert [refused.stdout] == re.findall(r"```\n(environment variable .*\n)```", page)
    assert "team_notes" in run(project, ".venv/bin/python main.py config show")

    debugging = next(command for command in commands_of(project / "docs/how-to.md") if "flask" in command)
    serve(debugging, project, [*PAGES, "/notes"], {})
    # Nothing else names a feature, so that the rest passes without it.
    for name in ("ops", "api"):
        run(project, f"make remove-feature NAME={name} ARGS=--yes")
    refused = run_in(project, ".venv/bin/python", "-m", "scaffold.check_names", "recipes", "recipe", "1")
    assert refused.stdout == "API=1: app/api/ is not there any more\n"
    run(project, "make ci")
