"""The blog's first page and an empty one, written by hand with Flask and sqlite3: what the service is measured beside.

It reads the service's own database, whose file `REFERENCE_DATABASE` names, and renders the same page.
"""

import os
import sqlite3
from datetime import datetime

from flask import Flask, g, render_template
from markupsafe import Markup

POSTS = """
SELECT post.id, post.title, post.body, post.created, user_account.username
FROM post JOIN user_account ON user_account.id = post.author_id ORDER BY post.id DESC LIMIT 11
"""

app = Flask(__name__, static_folder="../static")
app.config["TEMPLATES_AUTO_RELOAD"] = False


@app.template_filter()
def day(moment: datetime) -> Markup:
    return Markup(f'<time datetime="{moment.isoformat()}">{moment:%-d %B %Y}</time>')


@app.get("/")
def index() -> str:
    found = database().execute(POSTS).fetchall()
    posts = [{**row, "created": datetime.fromisoformat(row["created"] + "+00:00")} for row in found[:10]]
    return render_template("index.html", posts=posts, has_older=len(found) > 10)


@app.get("/empty")
def empty() -> str:
    return "empty"


@app.get("/posts/<int:post_id>", endpoint="post")
@app.get("/profile/<username>", endpoint="profile")
@app.get("/login", endpoint="login")
@app.get("/register", endpoint="register")
def elsewhere(**_: object) -> str:
    """What the page links to."""
    return ""


def database() -> sqlite3.Connection:
    """A connection for the request, as Flask's own documentation has it."""
    if "database" not in g:
        g.database = sqlite3.connect(os.environ["REFERENCE_DATABASE"])
        g.database.row_factory = sqlite3.Row
    return g.database


@app.teardown_appcontext
def close(_error: BaseException | None) -> None:
    if connection := g.pop("database", None):
        connection.close()
