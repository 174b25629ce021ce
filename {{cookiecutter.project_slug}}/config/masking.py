"""Settings as they may be shown."""

import re
from typing import Any

SECRET_NAME = re.compile(r"(secret|password|passphrase|token|dsn|key)$")
SECRET_IN_QUERY = re.compile(r"([?&]\w*(?:secret|password|token|key)=)[^&]*", re.IGNORECASE)


def mask(key: str, value: Any) -> Any:
    """`value` as it may be shown: a secret as `***`, a URL without its password."""
    if value and SECRET_NAME.search(key):
        return "***"
    if isinstance(value, str):
        value = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", value)
        return SECRET_IN_QUERY.sub(r"\1***", value)
    return value
