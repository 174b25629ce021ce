"""One filesystem API over several backends: `Storage(url)`."""

from storage.backend import Entry
from storage.errors import AlreadyExists, InvalidPath, NotFound, PermissionDenied, StorageError
from storage.storage import Storage

__all__ = ["AlreadyExists", "Entry", "InvalidPath", "NotFound", "PermissionDenied", "Storage", "StorageError"]
