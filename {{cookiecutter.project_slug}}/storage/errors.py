"""What storage raises, on every backend alike. Every message names the path, and none holds a credential."""


class StorageError(Exception):
    """The backend could not do it."""


class InvalidPath(StorageError):
    """The path is not a relative, normal path inside the storage."""


class NotFound(StorageError):
    """There is no file at the path."""


class AlreadyExists(StorageError):
    """There is a file at the path and it may not be replaced."""


class PermissionDenied(StorageError):
    """The backend does not let this service do it: modes of a disk, keys of a bucket, a login."""
