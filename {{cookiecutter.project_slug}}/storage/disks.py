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
    """The disks as the settings name them.

    Args:
        settings: with the section `storage`.
        link: makes a link from a disk's name, a path, and the time until it expires; see `Storage`.

    Raises:
        ConfigError: a URL names no backend, an option is wrong, or there is no disk called `default`.
    """
    disks = Disks()
    base = settings.storage.url or settings.app_dir.path.as_uri()
    for name, place in settings.storage.disks.items():
        try:
            disks[name] = Storage(disk_url(base, place), link=partial(link, name) if link else None)
        except ValueError as error:
            if settings.storage.url and "://" not in place and "?" not in place:
                raise settings.wrong("storage.url", settings.storage.url, error) from None
            raise settings.wrong(f"storage.disks.{name}", place, error) from None
    if "default" not in disks:
        raise settings.wrong("storage.disks", ", ".join(disks), "expected one called default")
    return disks


def disk_url(base: str, place: str) -> str:
    """The URL of a disk: `place` itself if it is one, else that folder below `base`, with the options of both.

    Raises:
        ValueError: `place` is neither.
    """
    if "://" in place:
        return place
    parts = urlsplit(base)
    folder, _, options = place.partition("?")
    try:
        path = f"{parts.path.rstrip('/')}/{quote(normalise(folder))}"
    except InvalidPath as error:
        raise ValueError(f"{error}; expected a folder below storage.url, or a URL such as file:///path") from None
    return urlunsplit(parts._replace(path=path, query="&".join(filter(None, (parts.query, options)))))
