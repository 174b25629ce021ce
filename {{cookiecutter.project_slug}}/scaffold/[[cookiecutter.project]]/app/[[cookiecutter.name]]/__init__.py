"""[[ cookiecutter.things | capitalize ]]: users list, search, write, archive and delete their own."""

from flask import Flask
[% if cookiecutter.api %]
from app.[[ cookiecutter.name ]] import api
[%- endif %]
from app.[[ cookiecutter.name ]].jobs import remove_archived_[[ cookiecutter.name ]]
from app.[[ cookiecutter.name ]].models import [[ cookiecutter.model ]]
from app.[[ cookiecutter.name ]].views import blueprint

__all__ = ["[[ cookiecutter.model ]]", "register", "remove_archived_[[ cookiecutter.name ]]"]


def register(app: Flask) -> None:
    app.register_blueprint(blueprint)
[%- if cookiecutter.api %]
    app.register_blueprint(api.blueprint)
[%- endif %]
