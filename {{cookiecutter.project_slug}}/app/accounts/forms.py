"""The forms of registration, login and pictures."""

from typing import Any

import svcs
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from wtforms import EmailField, PasswordField, StringField, ValidationError
from wtforms.validators import DataRequired, Length, Regexp

from app.accounts.pictures import FORMATS, check_picture
from config import Settings

LONGEST_PASSWORD = 128


class RegisterForm(FlaskForm):
    username = StringField(
        "User name",
        filters=[lambda name: name and name.strip().lower()],
        description="3 to 30 letters, digits, - or _. Everybody can see it.",
        render_kw={"autocomplete": "username", "autocapitalize": "none"},
        validators=[
            DataRequired("Choose a user name."),
            Regexp(r"[a-z0-9][a-z0-9_-]{2,29}\Z", message="Use 3 to 30 letters, digits, - or _."),
        ],
    )
    email = EmailField(
        "Email",
        filters=[lambda address: address and address.strip()],
        description="Only you can see it.",
        render_kw={"autocomplete": "email"},
        validators=[
            DataRequired("Give your email address."),
            Length(max=254, message="Use an email address of at most 254 characters."),
            Regexp(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z", message="This does not look like an email address."),
        ],
    )
    password = PasswordField(
        "Password",
        render_kw={"autocomplete": "new-password"},
        validators=[
            DataRequired("Choose a password."),
            Length(max=LONGEST_PASSWORD, message=f"Use at most {LONGEST_PASSWORD} characters."),
        ],
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shortest = svcs.flask.get(Settings).security.password_min_length
        self.password.description = f"At least {self.shortest} characters: a sentence is fine."

    def validate_password(self, field: PasswordField) -> None:
        """Long enough, and not one of the other answers."""
        password = field.data or ""
        if len(password) < self.shortest:
            raise ValidationError(f"Use at least {self.shortest} characters.")
        if password.lower() in ((self.username.data or "").lower(), (self.email.data or "").lower()):
            raise ValidationError("Use something other than your name or address.")


class LoginForm(FlaskForm):
    username = StringField(
        "User name",
        filters=[lambda name: name and name.strip().lower()],
        render_kw={"autocomplete": "username", "autocapitalize": "none"},
        validators=[DataRequired("Give your user name."), Length(max=30)],
    )
    password = PasswordField(
        "Password",
        render_kw={"autocomplete": "current-password"},
        validators=[DataRequired("Give your password."), Length(max=LONGEST_PASSWORD)],
    )


class PictureForm(FlaskForm):
    picture = FileField(
        "Picture",
        description="JPEG, PNG or WebP. Everybody can see it.",
        render_kw={"accept": ",".join(FORMATS.values())},
        validators=[FileRequired("Choose a picture.")],
    )

    def validate_picture(self, field: FileField) -> None:
        check_picture(field.data.stream, field.data.mimetype)
        field.data.stream.seek(0)
