"""What can be set: one struct per section, one field per key. The values are in `<section>.*` beside this file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from msgspec import Meta, Struct

from config.appdir import AppDir
from config.errors import ConfigError
from config.masking import mask

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Limit = Annotated[str, Meta(pattern=r"^\d+ per ([1-9]\d* )?(second|minute|hour|day)s?$")]
# A password in it is percent-encoded.
MailUrl = Annotated[
    str, Meta(pattern=r"^(smtps?://([^\s/@:]+:[^\s/@:]+@)?(\[[0-9a-f:]+\]|[\w.-]+)(:[1-6]?\d{1,4})?/?)?$")
]
BaseUrl = Annotated[str, Meta(pattern=r"^(https?://([\w.-]+|\[[0-9a-f:]+\])(:[1-6]?\d{1,4})?(/[\w./~-]*)?)?$")]
Address = Annotated[str, Meta(pattern=r"^([^\s@]+@[\w.-]+)?$")]
Port = Annotated[int, Meta(ge=1, le=65535)]


class App(Struct, frozen=True):
    name: Text
    slug: Text
    description: str
    base_url: BaseUrl
    secret_key: str
    secret_key_fallbacks: list[str]
    debug: bool


class Mail(Struct, frozen=True):
    url: MailUrl
    sender: Address


class Database(Struct, frozen=True):
    url: str
    timeout: Seconds
    statement_timeout: Seconds


class Storage(Struct, frozen=True):
    url: str
    disks: dict[str, Text]
    accel_redirect: str


class Queue(Struct, frozen=True):
    url: str
    processes: Positive
    threads: Positive
    lease: Seconds
    shutdown_timeout: Positive
    failed_days: Positive


class Schedule(Struct, frozen=True):
    disabled: list[Text]
    history_days: Positive


class Argon2(Struct, frozen=True):
    """Cost of a password hash; `memory_cost` in KiB."""

    time_cost: Positive
    memory_cost: Annotated[int, Meta(ge=8)]
    parallelism: Positive


class Security(Struct, frozen=True):
    session_lifetime: Positive
    cookie_secure: bool
    password_min_length: Positive
    argon2: Argon2
    rate_limits: dict[str, Limit]
    most_transfers: Positive
    trusted_hosts: list[str]
    max_request_size: Positive
    max_upload_size: Positive
    headers: dict[str, str]


class Web(Struct, frozen=True):
    host: Text
    port: Port
    workers: Positive
    threads: Positive
    timeout: Count
    graceful_timeout: Count
    trusted_proxies: Count
    reload: bool


class Backup(Struct, frozen=True):
    folder: str
    keep: Positive


class Telemetry(Struct, frozen=True):
    metrics_token: str
    sentry_dsn: str


class Settings(Struct, frozen=True):
    """All settings of one installation.

    `environment` is development, testing or production; `origins` tells for each key,
    written `section.key`, which file or environment variable its value came from. `features` has the section of each
    feature that brings one.
    """

    environment: str
    root: Path
    app_dir: AppDir
    origins: dict[str, str]
    features: dict[str, Struct]
    app: App
    backup: Backup
    database: Database
    mail: Mail
    storage: Storage
    queue: Queue
    schedule: Schedule
    security: Security
    telemetry: Telemetry
    # Its keys are those of `logging.config.dictConfig`.
    logging: dict[str, Any]
    web: Web

    @property
    def base_url(self) -> str:
        """How links begin that are followed from outside of a page: `app.base_url`, or what the other settings say."""
        hosts = self.security.trusted_hosts if self.environment == "production" else []
        own = f"https://{hosts[0].lstrip('.')}" if hosts else f"http://127.0.0.1:{self.web.port}"
        return self.app.base_url or own

    def wrong(self, key: str, found: str, reason: object) -> ConfigError:
        """The error for a value that is right by type and still cannot be used."""
        return ConfigError(f"{source_of(key, self.origins)}: {key}: found {mask(key, found)!r}: {reason}")


NO_SECTIONS = ("environment", "root", "app_dir", "origins", "features")
SECTIONS = {name: kind for name, kind in get_type_hints(Settings).items() if name not in NO_SECTIONS}


def source_of(key: str, origins: Mapping[str, str]) -> str:
    """Where the value of `section.key` came from; for one that is missing, where its neighbours did."""
    while key and key not in origins:
        near = (source for name, source in origins.items() if name.startswith(f"{key}."))
        if found := next(near, None):
            return found
        key = key.rpartition(".")[0]
    return origins.get(key, "config/")
