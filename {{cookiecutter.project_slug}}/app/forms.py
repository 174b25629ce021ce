"""What all forms share: they read forms and nothing else, and no check sees more than its field may hold."""

from typing import Any

from flask import request
from flask_wtf import FlaskForm
from wtforms import StringField, ValidationError
from wtforms.validators import Length, StopValidation


class Form(FlaskForm):
    """A form for a page."""

    class Meta(FlaskForm.Meta):
        """How a form reads a request."""

        def wrap_formdata(self, form: FlaskForm, formdata: Any) -> Any:
            # Flask-WTF would read JSON as a form, with values of any type.
            return None if request and request.is_json else super().wrap_formdata(form, formdata)


class AtMost(Length):
    """At most so many characters; for a longer text, no check that follows is made."""

    def __init__(self, most: int) -> None:
        super().__init__(max=most, message=f"Use at most {most:,} characters.")

    def __call__(self, form: FlaskForm, field: StringField) -> None:
        try:
            super().__call__(form, field)
        except ValidationError as error:
            raise StopValidation(str(error)) from None
