"""Settings that are right by type and still must not run."""

import math
import os
import re
import stat
import string
import zlib
from collections.abc import Iterator

from config.appdir import AppDir
from config.settings import Settings
from config.sources import ConfigError

PLACEHOLDER = re.compile(r"change.?me|secret|password|example|placeholder|testing|default|insecure", re.IGNORECASE)
MEND = "`python main.py appdir make`, which writes one into the app folder's .env"


def require_safe(settings: Settings) -> None:
    """Refuse to run with settings that would put the service at risk.

    Raises:
        ConfigError: no secret at all; in production also a weak secret, debug mode, files in memory, or an app folder
            that is missing or that others may write.
    """
    problems = list(_secret_problems(settings))
    if settings.environment == "production":
        if settings.app.debug or os.environ.get("FLASK_DEBUG", "0") not in ("", "0", "false", "no"):
            source = settings.origins["app.debug"] if settings.app.debug else "environment variable FLASK_DEBUG"
            problems.append(f"{source}: app.debug: found true, expected false in production; remove it")
        problems += _folder_problems(settings.app_dir)
        for key, url in {"url": settings.storage.url, **settings.storage.disks}.items():
            if url.startswith("memory:"):
                key = f"storage.{'' if key == 'url' else 'disks.'}{key}"
                problems.append(str(settings.wrong(key, url, "expected a place that keeps files in production")))
    if problems:
        raise ConfigError(*problems)


def _secret_problems(settings: Settings) -> Iterator[str]:
    secret = settings.app.secret_key
    where = f"{settings.origins['app.secret_key']}: app.secret_key"
    if not secret:
        yield f"{where}: SECRET_KEY is not set; run {MEND}"
    elif settings.environment == "production" and (PLACEHOLDER.search(secret) or _bits(secret) < 256):
        yield f"{where}: found a weak or well-known secret, expected 32 random bytes; remove SECRET_KEY and run {MEND}"


def _bits(secret: str) -> float:
    """The most entropy that a text of this length and alphabet can hold; none if it repeats itself."""
    if len(zlib.compress(secret.encode())) < 44:
        return 0
    alphabet = 16 if set(secret.lower()) <= set(string.hexdigits) else 64
    return len(secret) * math.log2(alphabet)


def _folder_problems(folder: AppDir) -> Iterator[str]:
    """Whoever can write the folder, its secrets or its settings, can run code: log handlers are named there."""
    if not folder.path.is_dir():
        yield f"{folder.path}: the app folder is missing; run `python main.py appdir make`"
        return
    for path in (folder.path, folder.env_file, folder.config, *sorted(folder.config.glob("**/*")), folder.data):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            yield f"{path}: others may write it; run `chmod o-w {path}`"
