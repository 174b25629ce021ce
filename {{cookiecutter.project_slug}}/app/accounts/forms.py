"""The forms of accounts."""

import re
from typing import Any

import svcs
from flask_login import current_user
from flask_wtf.file import FileField, FileRequired
from wtforms import EmailField, PasswordField, StringField, ValidationError
from wtforms.validators import DataRequired, Regexp

from app.accounts.models import USERNAME, User
from app.accounts.passwords import check_password, is_common
from app.accounts.pictures import FORMATS, UnusablePicture, check_picture
from app.forms import AtMost, Form
from config import Settings

LONGEST_PASSWORD = 128
# What every mail server takes. No two repetitions follow each other that could share a text.
EMAIL = r"[\w!#$%&'*+/=?^`{|}~-]+(\.[\w!#$%&'*+/=?^`{|}~-]+)*@[\w-]+(\.[\w-]+)+\Z"


class EmailForm(Form):
    email = EmailField(
        "Email",
        filters=[lambda address: address and address.strip()],
        render_kw={"autocomplete": "email"},
        validators=[
            DataRequired("Give your email address."),
            AtMost(254),
            Regexp(EMAIL, re.ASCII, "This does not look like an email address."),
        ],
    )


class CurrentPasswordForm(Form):
    current = PasswordField(
        "Your password",
        render_kw={"autocomplete": "current-password"},
        validators=[DataRequired("Give your password."), AtMost(LONGEST_PASSWORD)],
    )

    def validate_current(self, field: PasswordField) -> None:
        if not check_password(current_user, field.data or "", svcs.flask.get(Settings).security.argon2):
            raise ValidationError("This is not your password.")


class NewPasswordForm(Form):
    """A password for `account`, of which it must not be made."""

    password = PasswordField(
        "Password",
        render_kw={"autocomplete": "new-password"},
        validators=[DataRequired("Choose a password."), AtMost(LONGEST_PASSWORD)],
    )

    def __init__(self, *arguments: Any, account: User | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.account, self.shortest = account, svcs.flask.get(Settings).security.password_min_length
        self.password.label.text = "New password" if account else "Password"
        self.password.description = f"At least {self.shortest} characters: a sentence is fine."

    def names(self) -> tuple[str, str]:
        return (self.account.username, self.account.email) if self.account else ("", "")

    def validate_password(self, field: PasswordField) -> None:
        """Long enough, and neither a common one nor made of one's names, after NIST SP 800-63B, 3.1.1.2."""
        password, settings = field.data or "", svcs.flask.get(Settings)
        if len(password) < self.shortest:
            raise ValidationError(f"Use at least {self.shortest} characters.")
        username, email = self.names()
        if is_common(password, (email, email.partition("@")[0], username, settings.app.name, settings.app.slug)):
            raise ValidationError("This is a common password, or made of names. Use something longer or less usual.")


class ChangePasswordForm(CurrentPasswordForm, NewPasswordForm):
    pass


class AddressForm(EmailForm, CurrentPasswordForm):
    pass


class RegisterForm(EmailForm, NewPasswordForm):
    username = StringField(
        "User name",
        filters=[lambda name: name and name.strip().lower()],
        description="3 to 30 letters, digits, - or _. Everybody can see it.",
        render_kw={"autocomplete": "username", "autocapitalize": "none"},
        validators=[
            DataRequired("Choose a user name."),
            AtMost(30),
            Regexp(USERNAME, message="Use 3 to 30 letters, digits, - or _."),
        ],
    )

    def names(self) -> tuple[str, str]:
        return self.username.data or "", self.email.data or ""


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
