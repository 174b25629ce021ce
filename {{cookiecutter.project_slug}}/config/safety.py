"""Settings that are right by type and still must not run."""

import math
import os
import re
import stat
import string
import zlib
from collections.abc import Iterator

from config.appdir import MAKE, application
from config.settings import Settings
from config.sources import ConfigError

PLACEHOLDER = re.compile(r"change.?me|secret|password|example|placeholder|testing|default|insecure", re.IGNORECASE)
MEND = f"`{MAKE}`, which writes one into the app folder's .env"


def require_safe(settings: Settings) -> None:
    """Refuse to run with settings that would put the service at risk.

    Raises:
        ConfigError: no secret at all, or an app folder of another application or a newer version; in production also
            a weak secret, debug mode, files in memory, or an app folder that is missing or that others may write.
    """
    problems = [*secret_problems(settings), *debug_problems(settings), *_folder_problems(settings)]
    if settings.environment == "production":
        problems += _storage_problems(settings)
    if problems:
        raise ConfigError(*problems)


def secret_problems(settings: Settings) -> Iterator[str]:
    """No secret; in production, a weak one."""
    secret = settings.app.secret_key
    where = f"{settings.origins['app.secret_key']}: app.secret_key"
    if not secret:
        yield f"{where}: SECRET_KEY is not set; run {MEND}"
    elif settings.environment == "production" and (PLACEHOLDER.search(secret) or _bits(secret) < 256):
        yield f"{where}: found a weak or well-known secret, expected 32 random bytes; remove SECRET_KEY and run {MEND}"


def debug_problems(settings: Settings) -> Iterator[str]:
    """Debug mode in production."""
    if settings.environment != "production":
        return
    if settings.app.debug or os.environ.get("FLASK_DEBUG", "0") not in ("", "0", "false", "no"):
        source = settings.origins["app.debug"] if settings.app.debug else "environment variable FLASK_DEBUG"
        yield f"{source}: app.debug: found true, expected false in production; remove it"


def _bits(secret: str) -> float:
    """The most entropy that a text of this length and alphabet can hold; none if it repeats itself."""
    if len(zlib.compress(secret.encode())) < 44:
        return 0
    alphabet = 16 if set(secret.lower()) <= set(string.hexdigits) else 64
    return len(secret) * math.log2(alphabet)


def _folder_problems(settings: Settings) -> Iterator[str]:
    """Whoever can write the folder, its secrets or its settings, can run code: log handlers are named there."""
    folder = settings.app_dir
    if problem := folder.stranger(application(settings.root)):
        yield problem
    if settings.environment != "production":
        return
    if not folder.path.is_dir():
        yield f"{folder.path}: the app folder is missing; run `{MAKE}`"
        return
    for path in (folder.path, folder.env_file, folder.config, *sorted(folder.config.glob("**/*")), folder.data):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            yield f"{path}: others may write it; run `chmod o-w {path}`"


def _storage_problems(settings: Settings) -> Iterator[str]:
    for key, url in {"url": settings.storage.url, **settings.storage.disks}.items():
        if url.startswith("memory:"):
            key = f"storage.{'' if key == 'url' else 'disks.'}{key}"
            yield str(settings.wrong(key, url, "expected a place that keeps files in production"))
