"""The forms of registration, login and pictures."""

from typing import Any

import svcs
from flask_wtf.file import FileField, FileRequired
from wtforms import EmailField, PasswordField, StringField, ValidationError
from wtforms.validators import DataRequired, Regexp

from app.accounts.passwords import is_common
from app.accounts.pictures import FORMATS, UnusablePicture, check_picture
from app.forms import AtMost, Form
from config import Settings

LONGEST_PASSWORD = 128


class RegisterForm(Form):
    username = StringField(
        "User name",
        filters=[lambda name: name and name.strip().lower()],
        description="3 to 30 letters, digits, - or _. Everybody can see it.",
        render_kw={"autocomplete": "username", "autocapitalize": "none"},
        validators=[
            DataRequired("Choose a user name."),
            AtMost(30),
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
            AtMost(254),
            Regexp(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+\Z", message="This does not look like an email address."),
        ],
    )
    password = PasswordField(
        "Password",
        render_kw={"autocomplete": "new-password"},
        validators=[
            DataRequired("Choose a password."),
            AtMost(LONGEST_PASSWORD),
        ],
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shortest = svcs.flask.get(Settings).security.password_min_length
        self.password.description = f"At least {self.shortest} characters: a sentence is fine."

    def validate_password(self, field: PasswordField) -> None:
        """Long enough, and neither a common one nor made of one's names, after NIST SP 800-63B, 3.1.1.2."""
        password, settings = field.data or "", svcs.flask.get(Settings)
        if len(password) < self.shortest:
            raise ValidationError(f"Use at least {self.shortest} characters.")
        email = self.email.data or ""
        names = (email, email.partition("@")[0], self.username.data or "", settings.app.name, settings.app.slug)
        if is_common(password, names):
            raise ValidationError("This is a common password, or made of names. Use something longer or less usual.")


class LoginForm(Form):
    username = StringField(
        "User name",
        filters=[lambda name: name and name.strip().lower()],
        render_kw={"autocomplete": "username", "autocapitalize": "none"},
        validators=[DataRequired("Give your user name."), AtMost(30)],
    )
    password = PasswordField(
        "Password",
        render_kw={"autocomplete": "current-password"},
        validators=[DataRequired("Give your password."), AtMost(LONGEST_PASSWORD)],
    )


class PictureForm(Form):
    picture = FileField(
        "Picture",
        description="JPEG, PNG or WebP. Everybody can see it.",
        render_kw={"accept": ",".join(FORMATS.values())},
        validators=[FileRequired("Choose a picture.")],
    )

    def validate_picture(self, field: FileField) -> None:
        """A picture by its header; a job finds out whether it is whole."""
        try:
            check_picture(field.data.stream, field.data.mimetype)
        except UnusablePicture as error:
            raise ValidationError(str(error)) from None
        field.data.stream.seek(0)
