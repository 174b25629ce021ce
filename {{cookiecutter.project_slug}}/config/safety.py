"""Settings that are right by type and still must not run."""

from collections.abc import Iterator

from config.appdir import MAKE
from config.errors import ConfigError
from config.settings import Settings

SHORTEST_SECRET = 32


def require_safe(settings: Settings) -> None:
    """Refuse to run with settings that would put the service at risk; raises `ConfigError` with a line for each."""
    if problems := list(_problems(settings)):
        raise ConfigError("\n".join(problems))


def _problems(settings: Settings) -> Iterator[str]:
    secret, where = settings.app.secret_key, f"{settings.origins['app.secret_key']}: app.secret_key"
    if not secret:
        yield f"{where}: SECRET_KEY is not set; run `{MAKE}`, which writes one into the app folder's .env"
    if settings.environment != "production":
        return
    # 32 random bytes are 43 characters in base64, or 64 hexadecimal digits, of which more than 10 are different.
    if secret and (len(secret) < SHORTEST_SECRET or len(set(secret)) <= 10):
        yield f"{where}: found a weak secret, expected 32 random bytes; remove SECRET_KEY and run `{MAKE}`"
    if settings.app.debug:
        yield f"{settings.origins['app.debug']}: app.debug: found true, expected false in production"
    if settings.mail.url and not (settings.app.base_url or settings.security.trusted_hosts):
        yield f"{settings.origins['app.base_url']}: app.base_url: links in mails need it; set BASE_URL"
    for key, url in {"url": settings.storage.url, **settings.storage.disks}.items():
        if url.startswith("memory:"):
            yield f"config/storage.*: storage {key}: found {url}, expected a place that keeps files in production"
    yield from settings.app_dir.exposed()
    if not settings.app_dir.path.is_dir():
        yield f"{settings.app_dir.path}: the app folder is missing; run `{MAKE}`"
