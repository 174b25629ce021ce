"""An installation for the tests of what is rendered for it."""

from pathlib import Path
from typing import Any

from deploy.release import Site

VALUES = {"host": "shop.test", "user": "clerk", "certificate": "", "upload_limit": "7m", "keep": "5"}


def make_site(slug: str = "shop", root: Path = Path("/srv/shop"), **values: Any) -> Site:
    return Site(slug, root, **{**VALUES, **values})
