"""The forms of the blog."""

from flask_wtf import FlaskForm
from wtforms import StringField, TextAreaField
from wtforms.validators import DataRequired, Length


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
