"""The settings of [[ cookiecutter.things ]]; `config/[[ cookiecutter.name ]].yaml` has their values."""

from msgspec import Struct

from config.settings import Limit, Positive


class [[ cookiecutter.settings ]](Struct, frozen=True):
    most: Positive
    write_limit: Limit
    keep_days: Positive
