"""`make feature` asks here whether its names can be used: `python -m scaffold.check_names bookmarks bookmark`."""

import builtins
import re
import sys
from keyword import iskeyword

from app import create_app
from config import ROOT, ConfigError
from database import Base


def problem(name: str, one: str, api: str = "") -> str | None:
    """What is wrong with the names of a feature and of one of its rows, or with its wish for an API."""
    if api and not (ROOT / "app/api/__init__.py").exists():
        return f"API={api}: app/api/ is not there any more"
    for key, value in (("NAME", name), ("ONE", one)):
        if not re.fullmatch("[a-z][a-z0-9_]{0,28}[a-z0-9]", value) or "__" in value or iskeyword(value):
            return f"{key}={value}: expected 2 to 30 small letters, digits and _, and not a Python keyword"
    places = ("app/{}", "app/{}.py", "config/{}.*", "database/versions/{}", "tests/unit/{}", "tests/integration/{}")
    if found := next((path for place in places for path in ROOT.glob(place.format(name))), None):
        return f"NAME={name} is taken: by {found.relative_to(ROOT)}"
    if rule := next((rule for rule in create_app().url_map.iter_rules() if rule.rule.split("/")[1] == name), None):
        return f"NAME={name} is taken: by the address {rule.rule}"
    if one in Base.metadata.tables:
        return f"ONE={one} is taken: by a table"
    model, settings = (text.title().replace("_", "") for text in (one, name))
    known = "".join(path.read_text() for path in (ROOT / "scaffold").rglob("[[]*/*") if path.is_file())
    known += "".join(f"import {mapper.class_.__name__}\n" for mapper in Base.registry.mappers)
    for key, value, kind in (("ONE", one, model), ("NAME", name, settings)):
        if hasattr(builtins, kind) or re.search(rf"(?m)\bimport .*\b{kind}\b|^{kind} = ", known):
            return f"{key}={value} is taken: by the class {kind}"
    if name == one:
        return f"ONE is missing: what is one of them called? As in: make feature NAME={name} ONE={name}_item"
    return None


if __name__ == "__main__":
    try:
        sys.exit(problem(*sys.argv[1:]))
    except ConfigError as error:
        sys.exit(str(error))
