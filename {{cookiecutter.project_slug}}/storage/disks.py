"""Named places for files: the disks of `config/storage.yaml`."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from urllib.parse import quote, urlsplit, urlunsplit

from config import Settings
from storage.errors import InvalidPath, StorageError
from storage.paths import normalise
from storage.storage import Storage


class Disks(dict[str, Storage]):
    """Every storage of the service, by name; one of them is called `default`."""

    def __missing__(self, name: str) -> Storage:
        raise StorageError(f"there is no disk {name!r}; storage.disks names {', '.join(self)}")

    def check(self) -> None:
        """Raise `StorageError` if one of them cannot be written now."""
        for storage in self.values():
            storage.check()


def open_disks(settings: Settings, link: Callable[[str, str, timedelta], str] | None = None) -> Disks:
    """The disks as the settings name them; `link` is that of `Storage`, with the disk's name before the path.

    Raises:
        ConfigError: a URL names no backend, an option is wrong, or there is no disk called `default`.
    """
    disks = Disks()
    for name, place in settings.storage.disks.items():
        try:
            disks[name] = Storage(disk_url(settings, place), link=partial(link, name) if link else None)
        except (InvalidPath, ValueError) as error:
            if isinstance(error, ValueError) and settings.storage.url and "://" not in place:
                raise settings.wrong("storage.url", settings.storage.url, error) from None
            raise settings.wrong(f"storage.disks.{name}", place, error) from None
    if "default" not in disks:
        raise settings.wrong("storage.disks", ", ".join(disks), "expected one called default")
    return disks


def disk_url(settings: Settings, place: str) -> str:
    """The URL of a disk: `place` itself if it is one, else that folder below `storage.url`, with its options."""
    if "://" in place:
        return place
    base = urlsplit(settings.storage.url or settings.app_dir.path.as_uri())
    return urlunsplit(base._replace(path=f"{base.path.rstrip('/')}/{quote(normalise(place))}"))
