"""The form of [[ cookiecutter.things ]]."""

from wtforms import BooleanField, StringField, TextAreaField
from wtforms.validators import DataRequired

from app.forms import AtMost, Form


class [[ cookiecutter.model ]]Form(Form):
    title = StringField("Title", validators=[DataRequired("Give a title."), AtMost(200)])
    notes = TextAreaField("Notes", render_kw={"rows": 6}, validators=[AtMost(2_000)])
    archived = BooleanField("Archived", description="It is deleted after some time.")
