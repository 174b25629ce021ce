"""The forms of the blog."""

from flask_wtf.file import FileField, FileRequired
from wtforms import StringField, TextAreaField
from wtforms.validators import DataRequired

from app.csv_files import read_rows
from app.forms import AtMost, Form

COLUMNS = ("title", "body")
MOST_ROWS = 10_000


class PostForm(Form):
    title = StringField("Title", validators=[DataRequired("Give a title."), AtMost(200)])
    body = TextAreaField(
        "Text",
        render_kw={"rows": 12},
        validators=[DataRequired("Write something."), AtMost(20_000)],
    )


class ImportForm(Form):
    file = FileField(
        "CSV file",
        description=f"At most {MOST_ROWS:,} posts.",
        render_kw={"accept": ".csv,text/csv"},
        validators=[FileRequired("Choose a file.")],
    )

    def validate_file(self, field: FileField) -> None:
        """A readable file; a job checks the texts in it."""
        self.rows = sum(1 for _ in read_rows(field.data.stream, COLUMNS, MOST_ROWS))
        field.data.stream.seek(0)
