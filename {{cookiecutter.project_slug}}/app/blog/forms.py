"""The forms of the blog."""

from typing import Any

import svcs
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired, FileSize
from jinja2.filters import do_filesizeformat
from wtforms import StringField, TextAreaField, ValidationError
from wtforms.validators import DataRequired, Length

from app.csv_files import UnusableFile, read_rows
from config import Settings

COLUMNS = ("title", "body")
MOST_ROWS = 10_000


class PostForm(FlaskForm):
    """A post's text."""

    title = StringField(
        "Title", validators=[DataRequired("Give a title."), Length(max=200, message="Use at most 200 characters.")]
    )
    body = TextAreaField(
        "Text",
        render_kw={"rows": 12},
        validators=[DataRequired("Write something."), Length(max=20_000, message="Use at most 20,000 characters.")],
    )


class ImportForm(FlaskForm):
    """A CSV file of posts."""

    file = FileField("CSV file", render_kw={"accept": ".csv,text/csv"}, validators=[FileRequired("Choose a file.")])

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.largest = svcs.flask.get(Settings).security.max_upload_size
        self.file.description = f"At most {do_filesizeformat(self.largest)} and {MOST_ROWS:,} posts."

    def validate_file(self, field: FileField) -> None:
        """A readable file; a job checks the texts in it."""
        FileSize(self.largest, message=f"Use a file of at most {do_filesizeformat(self.largest)}.")(self, field)
        try:
            self.rows = sum(1 for _ in read_rows(field.data.stream, COLUMNS, MOST_ROWS))
        except UnusableFile as error:
            raise ValidationError(str(error)) from None
        field.data.stream.seek(0)
