"""What a storage raises, the same on every backend. Each message begins with the path; none holds a key or password."""


class StorageError(Exception):
    """The backend could not do it."""


class InvalidPath(StorageError):
    """The path is not a relative path inside the storage."""


class NotFound(StorageError):
    """There is no file at the path."""


class AlreadyExists(StorageError):
    """There is a file at the path and it must not be replaced."""


class PermissionDenied(StorageError):
    """The backend refuses this service: the modes of a disk, or the keys of a bucket."""
