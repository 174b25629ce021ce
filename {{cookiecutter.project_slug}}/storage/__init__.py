"""One filesystem API over local folders and object stores: `Storage(url)`."""

from storage.errors import AlreadyExists, InvalidPath, NotFound, PermissionDenied, StorageError
from storage.paths import Entry
from storage.storage import Storage

__all__ = ["AlreadyExists", "Entry", "InvalidPath", "NotFound", "PermissionDenied", "Storage", "StorageError"]
