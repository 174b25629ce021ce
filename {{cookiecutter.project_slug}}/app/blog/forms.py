"""The forms of the blog, and the check of files by the same rules."""

from collections.abc import Callable
from typing import Any, BinaryIO

import svcs
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired, FileSize
from jinja2.filters import do_filesizeformat
from werkzeug.datastructures import MultiDict
from wtforms import StringField, TextAreaField, ValidationError
from wtforms.validators import DataRequired, Length

from app.blog.csv_files import COLUMNS, RowError, UnusableFile, read_rows
from config import Settings

# Posts between two reports of how far it is.
STEP = 250


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
        self.file.description = f"At most {do_filesizeformat(self.largest)}."

    def validate_file(self, field: FileField) -> None:
        """A file that begins as one of posts does; a job checks the rest."""
        FileSize(self.largest, message=f"Use a file of at most {do_filesizeformat(self.largest)}.")(self, field)
        try:
            next(read_rows(field.data.stream))
        except UnusableFile as error:
            raise ValidationError(str(error)) from None
        field.data.stream.seek(0)


def check_rows(stream: BinaryIO, progress: Callable[[int, int], object]) -> tuple[list[dict[str, str]], list[RowError]]:
    """Title and body of each post of a CSV file, and what breaks the rules of the form that posts are written in.

    Args:
        stream: the file.
        progress: is told now and then how many rows are checked, and of how many.

    Raises:
        UnusableFile: as `read_rows`.
    """
    total = sum(1 for _ in read_rows(stream))
    stream.seek(0)
    posts, errors = [], []
    for done, (number, row) in enumerate(read_rows(stream), 1):
        form = PostForm(MultiDict(row), meta={"csrf": False})
        form.validate()
        posts.append({column: form[column].data for column in COLUMNS})
        for column, messages in form.errors.items():
            errors += [RowError(number, column, message, row[column]) for message in messages]
        if done % STEP == 0:
            progress(done, total)
    progress(total, total)
    return posts, errors
